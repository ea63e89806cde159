"""Is there memory for the images that are drawn? Known before the first one is, not when the process is killed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from routing.errors import InputError

_MEMORY = Path("/proc/meminfo")


def check_room(counts: Mapping[str, int], bytes_per_image: int) -> None:
    """Refuse to draw more images than fit into the memory that is free.

    Args:
        counts: split -> images; one split is drawn after the other and all are kept.
        bytes_per_image: while it is drawn.

    Raises:
        InputError: they do not; the message names the largest split and how many would.
    """
    needed, free = sum(counts.values()) * bytes_per_image, free_memory()
    if free is None or needed <= free:
        return
    split, count = max(counts.items(), key=lambda item: item[1])
    most = max((free - (needed - count * bytes_per_image)) // bytes_per_image, 1)
    raise InputError(
        f"dataset.num_{split} {count}: drawing takes {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free "
        f"(valid here: at most {most:,})"
    )


def free_memory() -> int | None:
    """Return the bytes of memory that a process can still get, None where the system does not say."""
    try:
        for line in _MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
