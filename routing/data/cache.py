"""Arrays built once per machine and shared by all its trials: memory-mapped files in the user's cache folder.

The folder is ``$ROUTING_CACHE``, else ``$XDG_CACHE_HOME/routing-sweeps``, else ``~/.cache/routing-sweeps``. It may be
deleted at any time; what is missing is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from routing.data import DataInfo, ImageData, Split
from routing.errors import RoutingError

if TYPE_CHECKING:
    from torch import Tensor

Column = np.ndarray | Callable[[Path], None]
"""An array, or, where it would not fit into memory, what writes it to a .npy file bit by bit."""

_LIST = "files.txt"
"""In a complete entry of the cache: a line per file that belongs to it, the SHA-256 of its content and its name."""

USED_FILE = "used"
"""In every entry: an empty file whose time is that of its last use."""

Arrays = Mapping[str, Mapping[str, Column]]


def cache_folder() -> Path:
    """Return the folder of cached arrays."""
    if "ROUTING_CACHE" in os.environ:
        return Path(os.environ["ROUTING_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "routing-sweeps"


def cached_data(info: DataInfo, name: str, key: dict[str, Any], build: Callable[[], Arrays]) -> ImageData:
    """Return a data set from the cache; see ``cached_splits``."""
    splits = cached_splits(name, key, build)
    return ImageData(info, splits, _digest(cache_folder() / entry_name(name, key) / _LIST))


def entry_name(name: str, key: dict[str, Any]) -> str:
    """Return the folder name of the entry with this key."""
    return f"{name}-{hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]}"


def cached_splits(name: str, key: dict[str, Any], build: Callable[[], Arrays]) -> dict[str, Split]:
    """Return splits from the cache, calling ``build`` once per machine when they are not there yet.

    Args:
        name: data set, for the folder's name.
        key: everything that decides the arrays; a change of any value is another cache entry.
        build: returns ``{"train": {"images": uint8 (N, C, H, W), "targets": (N,), ...}, ...}``.
    """
    folder = cache_folder() / entry_name(name, key)
    if not _is_whole(folder):
        with locked(folder):
            if not _is_whole(folder):
                arrays = build()
                with told(folder):
                    _write(folder, arrays)
    mark_used(folder)
    return {entry.name: _read(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}


def mark_used(folder: Path) -> None:
    """Note that an entry of the cache is used now."""
    with suppress(OSError):  # a cache that is only read
        (folder / USED_FILE).touch()


def _is_whole(folder: Path) -> bool:
    """Return whether every file that was written is still there: cleaners of temporary folders delete single files."""
    try:
        listed = (folder / _LIST).read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return all((folder / line.partition("  ")[2]).is_file() for line in listed)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an entry, so that any number of processes builds it once per machine."""
    lock = FileLock(f"{folder}.lock")
    with told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Turn errors of the file system into one line that names the folder."""
    try:
        yield
    except OSError as error:
        raise RoutingError(f"{folder}: the data cache cannot be written: {error}; set ROUTING_CACHE") from None


def _write(folder: Path, arrays: Arrays) -> None:
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for split, columns in arrays.items():
            (temporary / split).mkdir()
            for column, values in columns.items():
                path = temporary / split / f"{column}.npy"
                if callable(values):
                    values(path)
                else:
                    np.save(path, values, allow_pickle=False)
        lines = [f"{_digest(path)}  {path.relative_to(temporary)}\n" for path in sorted(temporary.glob("*/*.npy"))]
        (temporary / _LIST).write_text("".join(lines), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # what is left of an incomplete one
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def _read(folder: Path) -> Split:
    columns = {path.stem: _map(path) for path in sorted(folder.glob("*.npy"))}
    images, targets = columns.pop("images"), columns.pop("targets")
    return Split(images, targets.clone(), columns)


def _map(path: Path) -> Tensor:
    import torch  # describing a data set passes through this module and should not wait for it

    # copy-on-write, so that torch gets a writable buffer and the pages stay shared between processes
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
