"""What a process prints, libraries written in C included, into a file of the run it works on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

_NUMBERS = (1, 2)  # file descriptors of standard output and standard error


@contextmanager
def printed_to(path: Path) -> Iterator[None]:
    """Send what this process prints to the end of a file for a while; where nothing is printed, no file is left.

    The streams belong to the whole process: it works on one run at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("ab", buffering=0) as file, ExitStack() as undo:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            undo.callback(_put_back, sys.stdout, sys.stderr)
            for number in _NUMBERS:
                copy = os.dup(number)
                undo.callback(os.close, copy)
                undo.callback(os.dup2, copy, number)
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = (
                undo.enter_context(open(number, "w", buffering=1, closefd=False)) for number in _NUMBERS
            )
            yield
    finally:
        if path.exists() and not path.stat().st_size:
            path.unlink()


def _put_back(out: TextIO, error: TextIO) -> None:
    sys.stdout, sys.stderr = out, error
