"""The errors a user meets: bad input (exit code 2) and a failure while working (exit code 1)."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

LONGEST = 300
"""Characters of a message; a longer one loses its middle."""

_LONGEST_LIST = 200


class RoutingError(Exception):
    """Base of every error this project raises on purpose; its text is one line, whatever the user's words hold."""

    exit_code = 1

    def __init__(self, text: str) -> None:
        line = " ".join(text.split())
        if len(line) > LONGEST:
            line = f"{line[: LONGEST - 125]} ... {line[-120:]}"
        super().__init__(line.encode(errors="backslashreplace").decode())  # a file's name need not be valid text


class InputError(RoutingError):
    """Bad input: the text says what, where, and what would be valid."""

    exit_code = 2


class MissingPackage(InputError):
    """An optional package that is needed is not installed; the text says how to install it."""


class NodeFault(InputError):
    """A machine lacks what another node of a cluster may have.

    ``of`` is what asks for it: "dataset", "device" or "model" of a run, or "node" where every run does.
    """

    def __init__(self, text: str, of: str = "node") -> None:
        super().__init__(text)
        self.of = of


class TrialFailed(RoutingError):
    """A run could not finish (NaN loss, say); a sweep records the reason and goes on."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether a file could not be written for lack of room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest valid word, or ``""`` when none is close.

    Of dotted keys the part after the last dot is enough.
    """
    options = {str(option).lower(): str(option) for option in valid}
    word = word.lower()
    close = [options[found] for found in difflib.get_close_matches(word, options, n=1, cutoff=0.6)]
    if not close:  # a dotted key is often right but for its prefix
        tail = word.rsplit(".", 1)[-1]
        by_tail = {lower.rsplit(".", 1)[-1]: option for lower, option in options.items()}
        close = [by_tail[t] for t in difflib.get_close_matches(tail, by_tail, n=1, cutoff=0.6)]
    return f"; did you mean '{close[0]}'?" if close else ""


def choices(valid: Iterable[object]) -> str:
    """Return the valid values as one readable list; of many, the first ones and how many there are."""
    options = [str(option) for option in valid]
    text = ", ".join(options)
    if len(text) <= _LONGEST_LIST:
        return text
    return f"{text[:_LONGEST_LIST].rpartition(', ')[0]}, ... ({len(options):,} in all)"


def shown(value: object) -> str:
    """Return the user's input in the form in which a message quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
