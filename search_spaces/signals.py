"""SIGINT, SIGTERM and SIGHUP as a clean stop."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from routing.errors import RoutingError

GO_ON = "go on with --resume"
"""Said to a caller from Python; a person at a terminal gets the command."""
_RESUMES_ITSELF = "confirm"
"""The command that goes on without ``--resume`` where it is given again."""

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def go_on(*options: str) -> str:
    """Return how a sweep goes on: the whole command to paste, where one was given, with these options."""
    context = click.get_current_context(silent=True)
    words = None if context is None else context.find_root().obj
    if not words:
        return " ".join([GO_ON, *options])
    more = [] if words[0] == _RESUMES_ITSELF or "--resume" in words else ["--resume"]
    more += [option for option in options if option not in words]
    return f"go on with `{shlex.join(['routing', *words, *more])}`"


def last_words(out: Path) -> Callable[[str], None]:
    """Return how another thread says why this process ends here and now; what was given as a command is read here."""
    hint = go_on()
    return lambda reason: print(
        f"\nrouting: {reason}; finished trials are kept in {out}, {hint}", file=sys.stderr, flush=True
    )


class SweepInterrupted(RoutingError):
    """A signal ended the sweep; finished trials are kept. ``exit_code``: SIGINT 130, SIGTERM 143, SIGHUP 129."""

    def __init__(self, number: int, out: Path) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; finished trials are kept in {out}, {go_on()}")
        self.exit_code = 128 + number


@contextmanager
def clean_stop(interrupt: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into a clean stop; a second one acts as it always did.

    A SIGHUP that is ignored (``nohup``) stays ignored.

    Yields the function that puts the handlers in place (again).
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in _STOPS}
    if before.get(signal.SIGHUP) == signal.SIG_IGN:
        del before[signal.SIGHUP]

    def handle(number: int, _: FrameType | None) -> None:
        interrupt(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    def catch() -> None:
        for each in before:
            signal.signal(each, handle)

    catch()
    try:
        yield catch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
