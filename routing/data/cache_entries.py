"""The entries of the data cache: listing and removing them."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from routing.data.cache import USED_FILE, cache_folder
from routing.data.store import ENTRY_FILE
from routing.errors import InputError

_ENTRY = re.compile(r"\.?(?P<name>.+)-[0-9a-f]{16}(\.part|\..{8})?")
_AGE = re.compile(r"(\d+)\s*([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class Entry:
    """One entry: of which data set, from where (where that is known), how large, when it was used last."""

    path: Path
    name: str
    root: str
    images: int | None
    size: str
    bytes: int
    used: float
    is_whole: bool

    def row(self) -> dict[str, Any]:
        """Return its row of the table."""
        days = (time.time() - self.used) / 86_400
        return {
            "entry": self.path.name,
            "name": self.name if self.is_whole else f"{self.name} (unfinished)",
            "root": self.root,
            "images": self.images,
            "size": self.size,
            "bytes": _bytes(self.bytes),
            "used": "today" if days < 1 else f"{days:.0f} days ago",
        }


def entries() -> list[Entry]:
    """Return every entry of the cache, the largest first; kept trainings are one each."""
    folder = cache_folder()
    found = list(_data_sets(folder)) if folder.is_dir() else []
    for path in (folder / "trainings").glob("*.safetensors"):
        status = path.stat()
        found.append(Entry(path, "training", "", None, "", status.st_size, status.st_mtime, True))
    return sorted(found, key=lambda entry: (-entry.bytes, entry.path.name))


def remove(chosen: Iterable[Entry]) -> tuple[int, int]:
    """Remove entries and return how many and how many bytes; one that is being built or read first is left.

    Processes that have mapped an entry keep their mapping.
    """
    count = freed = 0
    for entry in chosen:
        lock = FileLock(str(_lock_of(entry.path)))
        try:
            with lock.acquire(timeout=0):
                if entry.path.is_dir():
                    shutil.rmtree(entry.path)
                else:
                    entry.path.unlink(missing_ok=True)
        except Timeout:
            continue
        except OSError as error:
            raise InputError(f"{entry.path}: cannot be removed: {error.strerror}") from None
        _lock_of(entry.path).unlink(missing_ok=True)
        count, freed = count + 1, freed + entry.bytes
    return count, freed


def seconds_of(age: str) -> float:
    """Return the seconds of ``30d``, ``12h``, ``2w``."""
    match = _AGE.fullmatch(age.strip())
    if match is None:
        raise InputError(f"--prune '{age}': write an age as 30d, 12h or 2w")
    return int(match[1]) * _SECONDS[match[2]]


def total(found: Iterable[Entry]) -> str:
    """Return the size of entries in words."""
    return _bytes(sum(entry.bytes for entry in found))


def _data_sets(folder: Path) -> Iterator[Entry]:
    for path in folder.iterdir():
        match = _ENTRY.fullmatch(path.name)
        if match is None or not path.is_dir():
            continue
        about = _about(path)
        times = [file.stat().st_mtime for file in (path / USED_FILE, path) if file.exists()]
        files = [file.stat() for file in path.rglob("*") if file.is_file()]
        yield Entry(
            path=path,
            name=match["name"],
            root=about.get("root", ""),
            images=about.get("images"),
            size=" x ".join(map(str, about.get("size", []))),
            bytes=sum(status.st_blocks * 512 for status in files),
            used=times[0],
            is_whole=match[2] is None,
        )


def _about(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((path / ENTRY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('.part')}.lock")


def _bytes(count: int) -> str:
    units = ((9, "GB"), (6, "MB"), (3, "kB"))
    return next((f"{count / 10**power:.1f} {unit}" for power, unit in units if count >= 10**power), f"{count} bytes")
