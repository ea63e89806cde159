"""When a sweep stops before all its trials have run: a signal, a full disk, the end of its time, nothing gained."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from routing.objectives import Objective, volume_of

if TYPE_CHECKING:
    from search_spaces.study.schema import StopSection

_ALIKE = 3
"""Failures in a row with one reason after which something other than the settings is wrong."""


class Stopping:
    """Collects the reasons to stop, from every side of a running sweep.

    Args:
        budget: seconds from the first trial that starts; None for no limit.
        keep_going: go on although one trial after the other fails in the same way.

    ``deadline`` is when the budget ends, on the monotonic clock; None before. ``failure`` says why no further trial can
    end well, ``finished_by`` who asked for the end.
    """

    def __init__(self, budget: float | None, keep_going: bool = False) -> None:
        self.budget, self.keep_going = budget, keep_going
        self.signal: int | None = None
        self.disk_full = False
        self.deadline: float | None = None
        self.failure: str | None = None
        self.fails_alike = self.ray_lost = False
        self.finished_by: str | None = None
        self._alike: list[str] = []

    def start_clock(self) -> None:
        """Count the time budget from now on; only the first call does."""
        if self.budget is not None and self.deadline is None:
            self.deadline = time.monotonic() + self.budget

    def should_stop(self) -> bool:
        """Return whether a signal came, the disk is full, the time is over or every trial fails."""
        late = self.deadline is not None and time.monotonic() > self.deadline
        return late or self.disk_full or self.signal is not None or self.failure is not None

    def ended(self, failure: str | None) -> None:
        """Note the end of a trial, with its reason where it failed and its setting is not to blame."""
        if failure is None or self._alike[:1] != [failure]:
            self._alike = []
        self._alike += [] if failure is None else [failure]
        if len(self._alike) >= _ALIKE and not self.keep_going:
            self.fails_alike = True
            self.failure = f"{_ALIKE} trials in a row failed alike: {failure}"

    def finish(self, who: str) -> None:
        """Start no more trials, because a person asked for the end; those that run end as they would."""
        self.finished_by = who

    def no_node_is_left(self, reason: str) -> None:
        """Stop because every node is left out."""
        self.failure = f"no node is left that can run a trial: {reason}"

    def ray_is_lost(self, reason: str) -> None:
        """Stop because the head of the cluster has died: nothing of Ray answers any more."""
        self.ray_lost, self.failure = True, reason

    def interrupt(self, number: int) -> None:
        """Stop because of a signal."""
        self.signal = number

    def disk_is_full(self) -> None:
        """Stop because a trial found no room for its files."""
        self.disk_full = True


class Plateau:
    """Says when a search has gained too little hypervolume over its last trials.

    Args:
        section: of the study.
        objectives: of the study.
        ended: points of the trials that have ended, none for a trial that was stopped or failed.
    """

    def __init__(
        self, section: StopSection, objectives: Sequence[Objective], ended: Iterable[Sequence[list[float]]] = ()
    ) -> None:
        self.section, self._objectives = section, objectives
        self._points: list[list[float]] = []
        self._volumes = [0.0]
        """Hypervolume after each trial, 0 before the first."""
        for points in ended:
            self.add(points)

    def add(self, points: Sequence[list[float]]) -> None:
        """Note the end of a trial."""
        self._points += points
        self._volumes.append(volume_of(self._points, self._objectives) if points else self._volumes[-1])

    @property
    def left(self) -> int:
        """Trials until the search ends if none of them gains anything; 0 when it is over."""
        enough = self._volumes[-1] / (1 + self.section.hypervolume_gain)
        flat = next((n for n, volume in enumerate(reversed(self._volumes)) if volume < enough), len(self._volumes))
        return max(self.section.over - flat + 1, 0) if self._volumes[-1] > 0 else self.section.over

    def words(self) -> str:
        """Return why the search ends."""
        gain, over = self.section.hypervolume_gain, self.section.over
        return f"the hypervolume grew by no more than {gain:.3g} of itself over {over} trials"
