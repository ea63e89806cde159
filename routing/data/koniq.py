"""KonIQ-10k and data in its form: a folder of photographs and a CSV with one row per photograph.

    image_name,c1,...,MOS,SD,set        set: training | validation | test

Photographs are decoded and resized once, in DataLoader workers, straight into memory-mapped files: training never
decodes, and memory stays bounded whatever the size of the data.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from routing.data import SPLITS, DataInfo, ImageData
from routing.data.cache import Arrays, cached_data
from routing.data.decode import upright_rgb
from routing.data.image_folder import MEAN, STD
from routing.data.quality_sections import Koniq10kSection, ScoredFolder
from routing.errors import InputError, choices, nearest

VERSION = 2  # raise when reading changes: cached arrays of an older version are then not used
SPLIT_OF_SET = {"training": "train", "validation": "val", "test": "test"}
WANTED = ("image_name", "MOS", "set")
NAMED = 5  # images an error names; it counts the rest
DECODE_BATCH = 32  # photographs in memory at once, per worker


@dataclass(frozen=True)
class ScoredImage:
    """One row of the CSV: the photograph and its quality in [0, 1]."""

    name: str
    path: Path
    quality: float


def info(section: Koniq10kSection) -> DataInfo:
    """Describe the data without reading it."""
    return DataInfo(
        task="quality",
        channels=3,
        input_size=section.input_size,
        num_outputs=1,
        mean=MEAN,
        std=STD,
        patch_grid_size=section.patch_grid_size,
        patch_margin=section.patch_margin,
        input_width=section.input_width,
    )


def load(section: Koniq10kSection) -> ImageData:
    """Return the official splits, and ``cross`` where a second data set is given.

    Raises:
        InputError: wrong columns, MOS out of range, an image in two splits, images missing or corrupt.
    """
    rows = read_scores(section, "dataset")
    if section.cross_test is not None:
        rows["cross"] = read_scores(section.cross_test, "dataset.cross_test", split="cross")["cross"]
    files = [row.path.stat() for split in rows.values() for row in split]
    key = {
        "version": VERSION,
        "size": [section.input_size, section.input_width],
        "images": {name: [(str(row.path.resolve()), row.quality) for row in split] for name, split in rows.items()},
        "bytes": sum(file.st_size for file in files),
        "newest": max(file.st_mtime_ns for file in files),
    }
    return cached_data(info(section), "koniq", key, lambda: _columns(section, rows))


def read_scores(folder: ScoredFolder, key: str, split: str | None = None) -> dict[str, list[ScoredImage]]:
    """Return the rows of a CSV by split; every image is there, none is in two splits.

    Args:
        folder: where CSV and images are, and the scale of the MOS.
        key: the configuration's key of ``folder``, for errors.
        split: put all rows into this split instead of asking the column ``set``.
    """
    path, images = folder.root / folder.csv, folder.root / folder.images
    if not path.is_file():
        raise InputError(f"{key}.csv: {path}: no such file (KonIQ-10k's is koniq10k_distributions_sets.csv)")
    if not images.is_dir():
        raise InputError(f"{key}.images: {images}: no such folder (KonIQ-10k's are 1024x768 and 512x384)")
    found: dict[str, list[ScoredImage]] = {name: [] for name in (SPLITS if split is None else (split,))}
    seen: dict[str, str] = {}
    for line, row in _rows(path, WANTED if split is None else WANTED[:2]):
        where = f"{path}:{line}"
        name = _plain_name(row["image_name"], where)
        target = split or _split_of(row["set"], where)
        if name in seen:
            both = f"sets {seen[name]} and {target}" if seen[name] != target else f"set {target} twice"
            raise InputError(f"{where}: image '{name}' is in {both}; a test on seen images says nothing")
        seen[name] = target
        found[target].append(ScoredImage(name, images / name, _quality(row["MOS"], name, folder, where)))
    _check_splits(found, path)
    _check_scale([row.quality for rows in found.values() for row in rows], folder, f"{path}: {key}")
    missing = [row.name for rows in found.values() for row in rows if not row.path.is_file()]
    if missing:
        raise InputError(f"{images}: {_named(missing, len(seen))} missing")
    return found


def _rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells of every row of a CSV that has the wanted columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            absent = [column for column in wanted if column not in columns]
            if absent:
                raise InputError(
                    f"{path}: no column '{absent[0]}'{nearest(absent[0], columns)} (wanted: {choices(wanted)}; "
                    f"found: {choices(columns) or 'none'})"
                )
            for row in reader:
                if any(row[column] is None for column in wanted):
                    raise InputError(f"{path}:{reader.line_num}: fewer cells than columns")
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8: {error}") from None


def _plain_name(name: str, where: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(f"{where}: image_name '{name}' is not a name inside the folder of images")
    return name


def _split_of(word: str, where: str) -> str:
    if word not in SPLIT_OF_SET:
        raise InputError(f"{where}: set '{word}'{nearest(word, SPLIT_OF_SET)} (valid: {choices(SPLIT_OF_SET)})")
    return SPLIT_OF_SET[word]


def _quality(text: str, name: str, folder: ScoredFolder, where: str) -> float:
    """Return the MOS scaled to [0, 1]."""
    low, high = folder.mos_min, folder.mos_max
    try:
        score = float(text)
    except ValueError:
        raise InputError(f"{where}: MOS of '{name}' is not a number: '{text}'") from None
    if not (math.isfinite(score) and low <= score <= high):
        raise InputError(f"{where}: MOS {text} of '{name}' is out of range (valid: {low:g} to {high:g}; see mos_max)")
    return (score - low) / (high - low)


def _check_splits(found: dict[str, list[ScoredImage]], path: Path) -> None:
    for name, rows in found.items():
        if not rows:
            word = next((word for word, split in SPLIT_OF_SET.items() if split == name), name)
            raise InputError(f"{path}: no row of set '{word}'")


def _check_scale(qualities: Sequence[float], folder: ScoredFolder, where: str) -> None:
    """Refuse scores that all lie in the lowest tenth of the range: those of 1 to 5 read as 0 to 100."""
    if max(qualities) <= 0.1:
        top = folder.mos_min + max(qualities) * (folder.mos_max - folder.mos_min)
        raise InputError(
            f"{where}.mos_max {folder.mos_max:g}: no MOS is above {top:g}; give mos_min and mos_max of the CSV's scale"
        )


def _named(names: Sequence[str], total: int) -> str:
    """Return ``3 of 10073 images (a.jpg, b.jpg, ...) are``."""
    shown = choices(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return f"{len(names)} of {total} images ({shown}) {'is' if len(names) == 1 else 'are'}"


def _columns(section: Koniq10kSection, rows: dict[str, list[ScoredImage]]) -> Arrays:
    seen: dict[bytes, tuple[str, str]] = {}
    roots = {"cross": section.cross_test.root} if section.cross_test is not None else {}
    return {
        name: {
            "images": partial(
                _decode_into, section=section, root=roots.get(name, section.root), split=name, rows=split, seen=seen
            ),
            "targets": np.array([row.quality for row in split], np.float32),
        }
        for name, split in rows.items()
    }


class _Decoder(Dataset[tuple[torch.Tensor, bytes]]):
    """Photographs as uint8 (3, H, W) and a digest of their pixels; a corrupt one is zeros with an empty digest."""

    def __init__(self, rows: Sequence[ScoredImage], height: int, width: int) -> None:
        self.rows, self.height, self.width = rows, height, width

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, bytes]:
        try:
            pixels = _read(self.rows[index].path, self.height, self.width)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return torch.zeros(3, self.height, self.width, dtype=torch.uint8), b""
        return torch.from_numpy(pixels), hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def _read(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    """Return a photograph as uint8 (3, H, W)."""
    with Image.open(path) as image:
        longest = max(width, height)
        image.draft("RGB", (longest, longest))  # a JPEG is decoded no larger than needed, whichever side is up
        resized = upright_rgb(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def _decode_into(
    path: Path,
    *,
    section: Koniq10kSection,
    root: Path,
    split: str,
    rows: Sequence[ScoredImage],
    seen: dict[bytes, tuple[str, str]],
) -> None:
    """Write the images of a split to ``path``, batch by batch.

    Args:
        seen: split and name of every photograph of other splits by the digest of its pixels; this split's are added.
    """
    shape = (len(rows), 3, section.input_size, section.input_width)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    decoder = _Decoder(rows, section.input_size, section.input_width)
    loader = DataLoader(decoder, DECODE_BATCH, num_workers=section.workers, collate_fn=list)
    corrupt, digests = [], {}
    for first, batch in zip(range(0, len(rows), DECODE_BATCH), loader, strict=True):
        for offset, (pixels, digest) in enumerate(batch):
            images[first + offset] = pixels.numpy()
            name = rows[first + offset].name
            if not digest:
                corrupt.append(name)
            elif digest in seen:
                other_split, other = seen[digest]
                raise InputError(f"'{name}' of set {split} is the same photograph as '{other}' of set {other_split}")
            else:
                digests[digest] = (split, name)
    if corrupt:
        raise InputError(f"{root}: {_named(corrupt, len(rows))} corrupt, or not an image")
    seen |= digests
    images.flush()
