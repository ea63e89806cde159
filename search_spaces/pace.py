"""How long a study still takes, from the epochs its trials have reported: known before the first of them ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Timed:
    """One trial: epochs planned and reported, and when; seconds of a monotonic clock."""

    planned: int
    started: float
    first: tuple[int, float] | None = None
    last: tuple[int, float] | None = None
    ended: float | None = None

    @property
    def trained(self) -> int:
        return 0 if self.last is None else self.last[0]

    def epochs_timed(self) -> tuple[int, float]:
        """Return epochs and the seconds they took; of a single report the time from the start, data and all."""
        if self.first is None or self.last is None:
            return 0, 0.0
        if self.last[0] > self.first[0]:
            return self.last[0] - self.first[0], self.last[1] - self.first[1]
        return max(self.first[0], 1), self.first[1] - self.started


class Pace:
    """Estimates the seconds a study still takes.

    A trial costs its epochs, and what is around them (data, model, operating points); both are means of what was seen.
    A trial that has not begun is expected to train as long as the others did, or, while they run, will on average.

    Args:
        slots: trials that run at once.
        expected_epochs: epochs of a trial -> those it trains on average, early stopping counted in.
    """

    def __init__(self, slots: int, expected_epochs: Callable[[int], float] = float) -> None:
        self.slots, self.expected_epochs = slots, expected_epochs
        self._running: dict[int, _Timed] = {}
        self._ended: list[_Timed] = []

    def start(self, number: int, epochs: int, now: float) -> None:
        """Note that a worker has taken a trial of this many epochs; one that was lost begins anew."""
        self._running[number] = _Timed(epochs, now)

    def report(self, number: int, epoch: int, now: float) -> None:
        """Note that a running trial has finished an epoch."""
        timed = self._running.get(number)
        if timed is not None:
            timed.last = (epoch, now)
            timed.first = timed.first or timed.last

    def end(self, number: int, now: float) -> float | None:
        """Note the end of a trial; return the seconds it took, None where it never began."""
        timed = self._running.pop(number, None)
        if timed is None:
            return None
        timed.ended = now
        self._ended.append(timed)
        return now - timed.started

    def drop(self, number: int) -> None:
        """Drop a trial that runs no more, and will start again."""
        self._running.pop(number, None)

    def forget_running(self) -> None:
        """Drop the trials that run; they will start again."""
        self._running.clear()

    def seconds_left(self, waiting: int, now: float) -> float | None:
        """Return the seconds until ``waiting`` more trials and those that run have ended; None before any epoch."""
        seen = [*self._ended, *self._running.values()]
        timed = [trial.epochs_timed() for trial in seen]
        epochs, seconds = sum(n for n, _ in timed), sum(s for _, s in timed)
        if not epochs:
            return None
        per_epoch, around = seconds / epochs, self._around()
        own = [self._left_of(trial, per_epoch, now) for trial in self._running.values()]
        lengths = [t.trained if t.ended is not None else self.expected_epochs(t.planned) for t in seen]
        ahead = waiting * (sum(lengths) / len(lengths) * per_epoch + around)
        return max([(sum(own) + ahead) / max(self.slots, 1), *own])

    def _left_of(self, trial: _Timed, per_epoch: float, now: float) -> float:
        epochs, seconds = trial.epochs_timed()
        pace = seconds / epochs if epochs else per_epoch
        since = now - (trial.started if trial.last is None else trial.last[1])
        return max((trial.planned - trial.trained) * pace - since, 0.0)

    def _around(self) -> float:
        """Return the seconds an ended trial spent outside its epochs, on average; 0 while none is known."""
        whole = [trial for trial in self._ended if trial.first is not None and trial.ended is not None]
        if not whole:
            return 0.0
        spent = []
        for trial in whole:
            epochs, seconds = trial.epochs_timed()
            assert trial.ended is not None
            spent.append(max(trial.ended - trial.started - seconds / epochs * trial.trained, 0.0))
        return sum(spent) / len(spent)
