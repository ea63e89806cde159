"""The image files below a folder, known without listing them anew: a manifest remembers what was there.

A folder whose time has not changed holds the same names, so that only sizes and times of its files are asked for. The
manifests lie in the data cache and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.data.cache import cache_folder
from routing.data.decode import EXTENSIONS
from routing.errors import InputError
from routing.files.atomic import write_text

PICTURES = (
    ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".dds", ".tga", ".ico", ".psd", ".svg", ".eps", ".exr", ".hdr",
    ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".pcx",
)  # fmt: skip
"""Kinds of images that are not read; they are counted, so that none is left out in silence."""

_VERSION = 1
_SETTLED_NS = 2_000_000_000  # a folder that changed within this time of its listing may have changed again unseen
_SLOW_SECONDS = 50e-6  # of asking for one file: a network file system, where many are asked for at once
_THREADS = 32


@dataclass(frozen=True)
class Folder:
    """One folder: its path relative to the root ("" for the root itself) and its image files, sorted."""

    path: str
    time_ns: int
    names: list[str]
    others: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """Image files by paths relative to a root; ``sizes`` and ``times_ns`` int64 (N,)."""

    root: str
    paths: Sequence[str]
    sizes: NDArray[np.int64]
    times_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def absolute(self, index: int) -> str:
        """Return the path of a file."""
        return os.path.join(self.root, self.paths[index])

    def subset(self, rows: NDArray[np.int64]) -> Files:
        """Return some of the files, in this order."""
        return Files(self.root, [self.paths[row] for row in rows.tolist()], self.sizes[rows], self.times_ns[rows])

    def digest(self) -> str:
        """Return what a renamed, moved, added, removed or rewritten file changes, wherever the root lies."""
        found = hashlib.sha256("\0".join(self.paths).encode(errors="surrogateescape"))
        for values in (self.sizes, self.times_ns):
            found.update(values.astype("<i8").tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Listing:
    """All image files below a root, folder by folder; ``sizes`` and ``times_ns`` in the order of ``folders``."""

    root: str
    folders: list[Folder]
    sizes: NDArray[np.int64]
    times_ns: NDArray[np.int64]

    def files(self) -> Files:
        """Return every file."""
        prefixes = [(f"{folder.path}{os.sep}" if folder.path else "", folder.names) for folder in self.folders]
        paths = [prefix + name for prefix, names in prefixes for name in names]  # a join is five times slower
        return Files(self.root, paths, self.sizes, self.times_ns)


def list_images(root: Path) -> Listing:
    """Return the images below a root; hidden files and folders, and macOS's ``__MACOSX``, are left out.

    Raises:
        InputError: a link leads nowhere, or a folder cannot be read.
    """
    where = str(root.resolve())
    manifest = cache_folder() / "manifests" / f"{hashlib.sha256(os.fsencode(where)).hexdigest()[:16]}.json"
    known = _remembered(manifest, where, str(root))
    if known is not None:
        return known
    started = time.time_ns()
    folders = list(_walk(str(root), "", frozenset()))
    statuses = _statuses(str(root), folders)
    if statuses is None:
        raise InputError(f"{root}: its files change while they are listed; wait until they are all there")
    listing = Listing(str(root), folders, *statuses)
    content = {"version": _VERSION, "root": where, "listed_ns": started, "folders": [vars(f) for f in folders]}
    with suppress(OSError):  # only the next listing would be faster
        write_text(manifest, json.dumps(content))
    return listing


def stat_files(root: Path, paths: Sequence[str]) -> Files:
    """Return these files with their sizes and times.

    Raises:
        OSError: one is not there.
    """
    found = [os.stat(os.path.join(root, path)) for path in paths]
    sizes = np.array([status.st_size for status in found], np.int64)
    return Files(str(root), paths, sizes, np.array([status.st_mtime_ns for status in found], np.int64))


def visible(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is visible: not hidden, and not added to archives by macOS."""
    return not entry.name.startswith(".") and entry.name != "__MACOSX"


def _remembered(manifest: Path, where: str, root: str) -> Listing | None:
    """Return the listing of a manifest that still holds, with the sizes and times of now."""
    try:
        content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        if content["version"] != _VERSION or content["root"] != where:
            return None
        folders = [Folder(**entry) for entry in content["folders"]]
        for folder in folders:
            if os.stat(os.path.join(where, folder.path)).st_mtime_ns != folder.time_ns:
                return None
            if folder.time_ns > content["listed_ns"] - _SETTLED_NS:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    statuses = _statuses(root, folders)
    return None if statuses is None else Listing(root, folders, *statuses)


def _walk(root: str, path: str, above: frozenset[tuple[int, int]]) -> Iterator[Folder]:
    """Yield the folders below one, each with its own files, in sorted order; a link back up is not followed."""
    where = os.path.join(root, path) if path else root
    try:
        status = os.stat(where)
        entries = sorted((entry for entry in os.scandir(where) if visible(entry)), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{where}: cannot be listed: {error.strerror}") from None
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    names, folders, others = [], [], Counter[str]()
    for entry in entries:
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.is_symlink() and not os.path.exists(entry.path):
            if suffix in EXTENSIONS or not suffix:
                raise InputError(f"{entry.path}: a link to {os.readlink(entry.path)}, which is not there")
        elif entry.is_dir():
            folders.append(entry.name)
        elif suffix in EXTENSIONS:
            names.append(entry.name)
        elif suffix in PICTURES:
            others[suffix] += 1
    yield Folder(path, status.st_mtime_ns, names, dict(others))
    for name in folders:
        yield from _walk(root, os.path.join(path, name), above | {identity})


def _statuses(root: str, folders: Sequence[Folder]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return sizes and times of all files, or None where one is not there any more."""
    prefixes = [(os.path.join(root, folder.path, ""), folder.names) for folder in folders]
    paths = [prefix + name for prefix, names in prefixes for name in names]
    found = np.empty((2, len(paths)), np.int64)

    def ask(first: int, last: int) -> None:
        stat = os.stat
        for index in range(first, last):
            status = stat(paths[index])
            found[0, index], found[1, index] = status.st_size, status.st_mtime_ns

    sample = min(len(paths), 200)
    try:
        started = time.perf_counter()
        ask(0, sample)
        if time.perf_counter() - started < sample * _SLOW_SECONDS:
            ask(sample, len(paths))
        else:
            bounds = np.linspace(sample, len(paths), _THREADS + 1).astype(int).tolist()
            with ThreadPoolExecutor(_THREADS) as threads:
                list(threads.map(ask, bounds[:-1], bounds[1:]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from None
    return found[0], found[1]
