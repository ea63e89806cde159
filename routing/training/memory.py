"""Memory that a process has freed: kept for the next batch, given back after a run; only glibc can be told."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # options of glibc's mallopt


def keep_freed_memory() -> None:
    """Let the process keep freed memory for the next batch.

    A routed batch allocates other sizes every time, and by default most of them go back to the system and are faulted
    in again, page by page: up to half of the time of inference.
    """
    mallopt = _of_glibc("mallopt")
    # older versions of glibc refuse more than 32 MiB; without one of the two, the other makes it worse
    if mallopt is not None and (mallopt(_MMAP_THRESHOLD, 2**30) or mallopt(_MMAP_THRESHOLD, 2**25)):
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Give freed memory back to the system.

    A worker runs every trial in a thread of its own, and glibc keeps what each thread has freed apart: without this a
    worker grows with every trial, by what the largest batch of one takes.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
