"""A temporary folder per process; the next process deletes those that killed processes left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "routing-"
_LOCK = ".lock"
_LONGEST_SOCKET = 107
"""Bytes of a socket's path, AF_UNIX."""
_SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")


@contextmanager
def scratch_folder(socket_name: int = 0) -> Iterator[Path]:
    """Yield a folder that is deleted afterwards.

    Its lock is released when the process ends, so that a folder whose lock is free has no owner left.

    Args:
        socket_name: characters of the longest name of a socket below it. Where ``TMPDIR`` is too long for that, as in
            a Slurm job, the folder lies in a shorter place.
    """
    parent = _parent(socket_name)
    delete_abandoned(parent)
    folder, lock = _create(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def delete_abandoned(parent: Path) -> None:
    """Delete the scratch folders of this user in ``parent`` whose process has ended."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid() or not (folder / _LOCK).is_file():
                continue
            with FileLock(folder / _LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def _parent(socket_name: int) -> Path:
    """Return the first temporary place of this machine that leaves room for the name of a socket."""
    usual = Path(tempfile.gettempdir())
    room = _LONGEST_SOCKET - socket_name - len(f"/{_PREFIX}12345678/")
    places = [usual, *map(Path, _SHORT_PLACES)] if socket_name else [usual]
    fits = (place for place in places if len(os.fsencode(place)) <= room and os.access(place, os.W_OK | os.X_OK))
    return next(fits, usual)


def _create(parent: Path) -> tuple[Path, FileLock]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = FileLock(folder / _LOCK, thread_local=False)
        try:
            lock.acquire()
        except OSError:
            if folder.exists():
                raise
            continue
        if (folder / _LOCK).exists():  # otherwise another process took it for abandoned before it was locked
            return folder, lock
        lock.release()
