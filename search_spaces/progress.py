"""What a person sees of a running study: one live line on a terminal, a plain line per trial elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from routing.commands.console import duration
from routing.pareto import volume_of

if TYPE_CHECKING:
    from routing.objectives import Objective

_REFRESH_SECONDS = 0.5


class SweepProgress:
    """Counts trials and shows them.

    Args:
        name: of the study.
        objectives: of the study; the first one is shown as ``best``.
        total: trials to run in all.
        done: trials an earlier driver has finished.
        points: points they left, one value per objective.
        stream: where to show it; live on a terminal, one line per trial elsewhere.
    """

    def __init__(
        self,
        name: str,
        objectives: tuple[Objective, ...],
        total: int,
        done: int = 0,
        points: Iterable[list[float]] = (),
        stream: TextIO | None = None,
    ) -> None:
        self.name, self.objectives, self.total = name, objectives, total
        self.stream = stream if stream is not None else sys.stderr
        self.done, self._done_before = done, done
        self._points = list(points)
        self._volume = volume_of(self._points, objectives)
        self._started = self._shown = time.monotonic()
        self._live: Any = None
        if self.stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live("", console=Console(file=self.stream), auto_refresh=False, transient=True)

    def __enter__(self) -> SweepProgress:
        self._started = time.monotonic()
        if self._live is not None:
            self._live.start()
            self.refresh(running=0, force=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def finished(self, number: int, state: str, words: str, points: list[list[float]]) -> None:
        """Note the end of a trial; ``words`` says what came of it."""
        self.done += 1
        if points:
            self._points += points
            self._volume = volume_of(self._points, self.objectives)
        if self._live is None:
            print(f"[{self.done}/{self.total}] trial {number} {state.lower()}: {words}", file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def refresh(self, running: int, force: bool = False) -> None:
        """Redraw the live line, at most twice a second."""
        now = time.monotonic()
        if self._live is None or (now - self._shown < _REFRESH_SECONDS and not force):
            return
        self._shown = now
        from rich.text import Text

        self._live.update(Text(self.line(running), no_wrap=True, overflow="ellipsis"), refresh=True)

    def line(self, running: int) -> str:
        """Return the live line: done/total, running, best, hypervolume, time left."""
        parts = [f"{self.name}  {self.done}/{self.total} trials", f"{running} running"]
        if self._points:
            first = self.objectives[0]
            values = [point[0] for point in self._points]
            best = max(values) if first.goal == "maximize" else min(values)
            parts += [f"best {first.metric} {best:.4g}", f"hypervolume {self._volume:.4g}"]
        parts += [f"{duration(time.monotonic() - self._started)} gone", self.time_left()]
        return "  |  ".join(part for part in parts if part)

    def time_left(self) -> str:
        """Return when the study will end at the pace so far, empty while there is no pace."""
        here = self.done - self._done_before
        if here == 0:
            return ""
        pace = (time.monotonic() - self._started) / here
        return f"about {duration(pace * max(self.total - self.done, 0))} left"
