"""Whether a sweep is under way in a results folder, seen from outside: nothing is locked and nothing is written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from routing.files.results_folder import LEDGER_FILE, LOCK_FILE, POINTS_FILE, TRIALS_FILE

_LOCKS = Path("/proc/locks")
_QUIET_SECONDS = 120
"""After this long without a change, a sweep whose driver is not seen has ended."""


def is_driven(folder: Path) -> bool:
    """Return whether a driver on this machine holds the lock of a results folder; a driver elsewhere is not seen.

    Taking the lock to find out would turn away a driver that starts at this moment.
    """
    try:
        lock, held = (folder / LOCK_FILE).stat(), _LOCKS.read_text(encoding="utf-8")
    except OSError:
        return False
    place = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
    return any(place in line.split() for line in held.splitlines())


def last_change(folder: Path) -> float:
    """Return when ledger or tables of a results folder were last written, in seconds since 1970; 0 without any."""
    files = [folder / name for name in (LEDGER_FILE, TRIALS_FILE, POINTS_FILE)]
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def is_under_way(folder: Path, has_unfinished: Callable[[], bool]) -> bool:
    """Return whether a sweep goes on: its driver is seen, or trials are unfinished and it changed just now.

    Args:
        has_unfinished: whether a trial of the folder runs or waits; asked only where no driver is seen.
    """
    if is_driven(folder):
        return True
    return has_unfinished() and time.time() - last_change(folder) < _QUIET_SECONDS
