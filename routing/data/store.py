"""Decoded images of files, built once per machine: one memory-mapped file of pixels, written block by block.

An entry of the data cache holds ``images.npy`` uint8 (N, 3, H, W) and ``entry.json``, which is written last. While it
is built, its folder ends in ``.part`` and a line per finished block is added to ``blocks.jsonl``: whatever ends the
process, the next one goes on after the last finished block. Splits are rows of a store, so that another seed costs
nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from routing.data.cache import cache_folder, entry_name, locked, mark_used, told
from routing.data.decode import depth_of
from routing.data.decode_blocks import Block, Decoder, Workers
from routing.data.files import Files
from routing.data.progress import Progress, note
from routing.data.view import View
from routing.errors import InputError, RoutingError
from routing.files.atomic import write_text

ENTRY_FILE = "entry.json"
IMAGES_FILE = "images.npy"
_BLOCKS = "blocks.jsonl"
_DIGESTS = "digests.txt"  # of the pixels of every image, a line each
_BLOCK_BYTES = 8 * 2**20
_FEW = 256  # images that are decoded before another process would have started
_NAMED = 5  # damaged files that an error names; it counts the rest


@dataclass(frozen=True)
class Store:
    """What is known of decoded files; ``images`` is the file of their pixels, None where they are not stored.

    ``damaged`` says why, by row; ``view`` has the bit depth that was found. ``key`` is a digest of all pixels, the same
    on every machine and whether they are stored or not. ``brightest`` is the largest grey value of files with more than
    8 bits, 0 without such files.
    """

    folder: Path
    images: Path | None
    view: View
    damaged: dict[int, str]
    key: str
    brightest: int

    def pixel_digests(self) -> list[str]:
        """Return a digest of the pixels of every image, empty for a damaged one: equal images have equal ones."""
        return (self.folder / _DIGESTS).read_text(encoding="ascii").splitlines()


def open_store(name: str, files: Files, view: View, *, keep: bool = True, workers: int | None = None) -> Store:
    """Return the decoded files, built now where this machine does not have them.

    Args:
        name: data set, for the folder's name and for progress.
        keep: store the pixels; else every file is decoded once, to know that it can be.
        workers: processes that decode; None: one per CPU of this process; 0: this process alone.

    Raises:
        InputError: a file cannot be read.
        RoutingError: the cache cannot be written, or the disk has no room.
    """
    key = {**view.key(), "files": files.digest()}
    folder = cache_folder() / entry_name(name, key)
    found = _read(folder, view)
    if found is None and not keep:  # stored pixels need not be checked again
        folder = cache_folder() / entry_name(name, {**key, "pixels": False})
        found = _read(folder, view)
    if found is None:
        with locked(folder):
            found = _read(folder, view)
            if found is None:
                _build(folder, name, files, view, keep, workers)
                found = _read(folder, view)
    assert found is not None
    mark_used(folder)
    return found


def check_damaged(store: Store, files: Files) -> None:
    """Raise ``InputError`` that names the files which cannot be decoded, where there are any."""
    if not store.damaged:
        return
    first, *others = sorted(store.damaged)
    more = ""
    if others:
        named = ", ".join(files.paths[row] for row in others[: _NAMED - 1])
        more = f"; nor {'is' if len(others) == 1 else 'are'} {named}"
        more += f", ... ({len(store.damaged):,} files in all)" if len(others) >= _NAMED else ""
    raise InputError(
        f"{files.absolute(first)}: not a readable image: {store.damaged[first]}{more}; mend or remove it, or leave "
        "such files out with dataset.on_damaged skip"
    )


def _read(folder: Path, view: View) -> Store | None:
    try:
        content: dict[str, Any] = json.loads((folder / ENTRY_FILE).read_text(encoding="utf-8"))
        images = folder / IMAGES_FILE if content["pixels"] else None
        if images is not None and images.stat().st_size < content["images"] * view.image_bytes:
            return None
        if not (folder / _DIGESTS).is_file():  # cleaners of temporary folders delete single files
            return None
        damaged = {int(row): why for row, why in content["damaged"].items()}
        return Store(folder, images, view.at_depth(content["bit_depth"]), damaged, content["key"], content["brightest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(folder: Path, name: str, files: Files, view: View, keep: bool, workers: int | None) -> None:
    part = folder.with_name(f"{folder.name}.part")
    blocks = _blocks(files, view)
    with told(folder):
        part.mkdir(parents=True, exist_ok=True)
        target, offset = _reserve(part, len(files), view) if keep else (None, 0)
        done = _finished(part)
    missing = [block for block in blocks if block.number not in done]
    count = sum(len(block.paths) for block in missing)
    processes = 0 if count <= _FEW else (usable_cpus() if workers is None else workers)
    if keep and count > _FEW:
        note(f"{name}: {len(files):,} images take {_size(len(files) * view.image_bytes)} in {cache_folder()}")
    progress = Progress(f"{name}: reading", len(files), len(files) - count)
    with Workers(processes) as pool, told(folder), (part / _BLOCKS).open("a", encoding="utf-8") as journal:
        journal.write("\n")  # the last line may have been cut off
        brightest = max(pool.brightest(blocks), default=0) if view.bit_depth is None else 0
        view = view if view.bit_depth is not None else view.at_depth(depth_of(brightest))
        decoder = Decoder(view, None if target is None else str(target), offset)
        for decoded in pool.decode(decoder, missing):
            done[decoded.number] = vars(decoded)
            journal.write(json.dumps(vars(decoded)) + "\n")
            journal.flush()
            progress.add(decoded.count)
        progress.close()
    with told(folder):
        about = {
            "name": name,
            "root": os.path.abspath(files.root),
            "images": len(files),
            "size": [view.height, view.width],
        }
        about |= {"pixels": keep, "bit_depth": view.bit_depth, "brightest": brightest}
        _finish(part, folder, about, [done[block.number] for block in blocks])


def _finish(part: Path, folder: Path, about: dict[str, Any], blocks: Sequence[dict[str, Any]]) -> None:
    content = {
        **about,
        "key": hashlib.sha256("".join(block["digest"] for block in blocks).encode()).hexdigest(),
        "damaged": {row: why for block in blocks for row, why in block["damaged"].items()},
    }
    write_text(part / _DIGESTS, "".join(f"{digest}\n" for block in blocks for digest in block["same"]))
    write_text(part / ENTRY_FILE, json.dumps(content))
    (part / _BLOCKS).unlink()
    shutil.rmtree(folder, ignore_errors=True)  # what is left of one that lost its files
    part.rename(folder)


def _blocks(files: Files, view: View) -> list[Block]:
    size = max(1, min(512, _BLOCK_BYTES // view.image_bytes))
    firsts = range(0, len(files), size)
    return [
        Block(number, first, [files.absolute(row) for row in range(first, min(first + size, len(files)))])
        for number, first in enumerate(firsts)
    ]


def _reserve(part: Path, count: int, view: View) -> tuple[Path, int]:
    """Make the file of pixels in its full size, so that a full disk is known now; return it and where pixels begin."""
    path, shape = part / IMAGES_FILE, (count, 3, view.height, view.width)
    total = math.prod(shape)
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    start = len(header.getvalue())
    if not path.exists() or path.stat().st_size != start + total:  # an interrupted reservation leaves a shorter file
        path.unlink(missing_ok=True)
        free = shutil.disk_usage(part).free
        if total > free:
            raise RoutingError(
                f"{cache_folder()}: {count:,} images take {_size(total)}, and the disk has {_size(free)} left; set "
                "ROUTING_CACHE to a larger one, or read the files in every epoch with dataset.storage files"
            )
        (part / _BLOCKS).unlink(missing_ok=True)
        with path.open("wb") as file:
            file.write(header.getvalue())
            file.flush()
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, start + total)
            file.truncate(start + total)
    return path, start


def _finished(part: Path) -> dict[int, dict[str, Any]]:
    """Return the blocks that an interrupted build has finished; its last line may be cut off."""
    done = {}
    try:
        lines = (part / _BLOCKS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            block: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        done[block["number"]] = block
    return done


def usable_cpus() -> int:
    """Return the CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(count: float) -> str:
    units = ((12, "TB"), (9, "GB"), (6, "MB"))
    return next((f"{count / 10**p:.3g} {u}" for p, u in units if count >= 10**p), f"{count:,.0f} bytes")
