"""Words to people while data are read: one live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

_FIRST, _LIVE, _PLAIN = 2.0, 0.5, 15.0  # seconds: before the first words, between updates on a terminal and elsewhere


def note(line: str) -> None:
    """Print one line on standard error, which is not part of the result."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Counts images; prints their number, the rate and the time left."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done, self._before = what, total, done, done
        self._started = time.monotonic()
        self._next = self._started + _FIRST
        self._live = sys.stderr.isatty()
        self._said = False

    def add(self, images: int) -> None:
        """Count images; print a line when one is due."""
        self._done += images
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (_LIVE if self._live else _PLAIN)
            self._say(now)

    def close(self) -> None:
        """End the line, where one was begun."""
        if self._said:
            self._say(time.monotonic())
            if self._live:
                note("")

    def _say(self, now: float) -> None:
        self._said = True
        rate = (self._done - self._before) / max(now - self._started, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        line = f"{self._what}: {self._done:,} of {self._total:,} images, {rate:,.0f} per second, {left:,.0f} s left"
        if self._live:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            note(line)
