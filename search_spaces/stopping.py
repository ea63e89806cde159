"""When a sweep stops before all its trials have run: a signal, a full disk, the end of its time."""

from __future__ import annotations

import time


class Stopping:
    """Collects the reasons to stop, from every side of a running sweep.

    Args:
        budget: seconds from the first trial that starts; None for no limit.

    ``deadline`` is when that is, on the monotonic clock; None before.
    """

    def __init__(self, budget: float | None) -> None:
        self.budget = budget
        self.signal: int | None = None
        self.disk_full = False
        self.deadline: float | None = None

    def start_clock(self) -> None:
        """Count the time budget from now on; only the first call does."""
        if self.budget is not None and self.deadline is None:
            self.deadline = time.monotonic() + self.budget

    def should_stop(self) -> bool:
        """Return whether a signal came, the disk is full or the time is over."""
        late = self.deadline is not None and time.monotonic() > self.deadline
        return late or self.disk_full or self.signal is not None

    def interrupt(self, number: int) -> None:
        """Stop because of a signal."""
        self.signal = number

    def disk_is_full(self) -> None:
        """Stop because a trial found no room for its files."""
        self.disk_full = True
