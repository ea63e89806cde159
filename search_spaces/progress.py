"""What a person sees of a running study: a live view on a terminal, a line per trial elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from routing.commands.console import duration
from routing.config.script import AnyRun
from routing.files.results_folder import COMPLETE, ERROR_FILE, FAIL, PRUNED, trial_folder
from search_spaces.pace import Pace
from search_spaces.words import Best, FoundPoint, of_model, of_values

if TYPE_CHECKING:
    from routing.objectives import Objective
    from search_spaces.live_view import LiveView
    from search_spaces.stopping import Plateau

_REFRESH_SECONDS = 0.5


@dataclass
class Running:
    """A trial as the view shows it; ``row`` is the last row of its history."""

    number: int
    model: str
    epochs: int
    row: Mapping[str, Any] = field(default_factory=dict)


class SweepProgress:
    """Counts trials and shows them.

    Args:
        name: of the study.
        objectives: of the study.
        total: trials to run in all.
        out: results folder.
        done: trials an earlier driver has finished.
        points: points they left.
        slots: trials that run at once.
        expected_epochs: epochs of a trial -> those it trains on average, early stopping counted in.
        deadline: when the time budget ends, on the monotonic clock; None without one.
        keys: what tells the runs of a script apart.
        plateau: says when the study ends because nothing is gained; None where it does not.
        stream: where to show it; live on a terminal, one line per trial elsewhere.
    """

    ENDS: ClassVar[dict[str, str]] = {PRUNED: "stopped", FAIL: "failed"}
    """How a trial can end other than by finishing, in one word."""

    def __init__(
        self,
        name: str,
        objectives: tuple[Objective, ...],
        total: int,
        out: Path,
        done: int = 0,
        points: Iterable[FoundPoint] = (),
        slots: int = 1,
        expected_epochs: Callable[[int], float] = float,
        deadline: Callable[[], float | None] = lambda: None,
        keys: Sequence[str] = (),
        plateau: Plateau | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self.name, self.objectives, self.total, self.out, self.done = name, objectives, total, out, done
        self.stream = stream if stream is not None else sys.stderr
        self._keys = keys
        self.ends: Counter[str] = Counter()
        self.running: dict[int, Running] = {}
        self.best = Best(objectives, list(points))
        self.plateau = plateau
        self._pace, self._deadline = Pace(slots, expected_epochs), deadline
        self._started = self._shown = time.monotonic()
        self._view: LiveView | None = None
        if self.stream.isatty():
            from search_spaces.live_view import live_view

            self._view = live_view(self.stream)

    def __enter__(self) -> SweepProgress:
        self._started = time.monotonic()
        if self._view is not None:
            self._view.start(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._view is not None:
            self._view.stop()

    def started(self, number: int, config: AnyRun) -> None:
        """Note that a worker has taken a trial, for the first time or again."""
        self.running[number] = Running(number, of_model(config, self._keys), config.num_epochs)
        self._pace.start(number, config.num_epochs, time.monotonic())

    def reported(self, number: int, row: Mapping[str, Any]) -> None:
        """Note a row of a running trial's history."""
        if number in self.running and "epoch" in row:
            self.running[number].row = row
            self._pace.report(number, int(row["epoch"]), time.monotonic())

    def finished(self, number: int, state: str, reason: str, points: list[list[float]]) -> None:
        """Note the end of a trial and say it; ``reason`` is why it was stopped or failed, empty where it finished.

        Args:
            points: one value per objective of every operating point, the default one first.
        """
        self.done += 1
        self.ends[state] += 1
        was = self.running.pop(number, None)
        seconds = self._pace.end(number, time.monotonic())
        model = "" if was is None else was.model
        self.best.add(model, points)
        if self.plateau is not None:
            self.plateau.add(points)
        what = of_values(self.objectives, points[0]) if state == COMPLETE and points else reason
        what = f"{self.ENDS[state]}: {what.removeprefix('stopped: ')}" if state in self.ENDS else what
        line = "  ".join(part for part in (f"[{self.done}/{self.total}] trial {number}", model, what) if part)
        line += "" if seconds is None else f"  ({duration(seconds)})"
        error = trial_folder(self.out, number) / ERROR_FILE
        if state == FAIL and error.exists():
            line += f"\n    {error}"
        if self._view is not None:
            self._view.keep(line, failed=state == FAIL)
            self.refresh(force=True)
        else:
            self.say("  |  ".join([line, *self.clock()]))

    def one_more(self) -> None:
        """Count a trial that a person has enqueued."""
        self.total += 1

    def moved(self, number: int) -> None:
        """Note that a running trial is queued again: its node is not fit for it."""
        self.running.pop(number, None)
        self._pace.drop(number)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._view is not None:
            self._view.keep(text)
        else:
            print(text, file=self.stream, flush=True)

    def begin_again(self, done: int) -> None:
        """Forget the trials that ran: they were lost with their workers; ``done`` have ended in all."""
        self.done = done
        self.running.clear()
        self._pace.forget_running()

    def refresh(self, force: bool = False) -> None:
        """Redraw the live view, at most twice a second."""
        now = time.monotonic()
        if self._view is not None and (force or now - self._shown >= _REFRESH_SECONDS):
            self._shown = now
            self._view.show(self)

    def clock(self) -> list[str]:
        """Return the time left and the time so far, in words."""
        now = time.monotonic()
        return [self.time_left(now), f"{duration(now - self._started)} elapsed", *self._end_in_sight()]

    def _end_in_sight(self) -> list[str]:
        """Return in how many trials the study ends if nothing more is gained, once some have gained nothing."""
        if self.plateau is None or self.plateau.left >= self.plateau.section.over:
            return []
        left = self.plateau.left
        return [f"ends in {left} trial{'s' * (left > 1)} without a gain" if left else "ends with the trials that run"]

    def time_left(self, now: float) -> str:
        """Return when the study will end, in words; a time budget may end it before its trials do."""
        waiting = max(self.total - self.done - len(self.running), 0)
        left, limit = self._pace.seconds_left(waiting, now), self._deadline()
        if limit is not None and (left is None or now + left > limit):
            return f"{duration(max(limit - now, 0))} left of the time budget"
        return "time left: known after an epoch" if left is None else f"about {duration(left)} left"
