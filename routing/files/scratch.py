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


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder that is deleted afterwards.

    Its lock is released when the process ends, so that a folder whose lock is free has no owner left.
    """
    delete_abandoned(Path(tempfile.gettempdir()))
    folder, lock = _create()
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


def _create() -> tuple[Path, FileLock]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
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
