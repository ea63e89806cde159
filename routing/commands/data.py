"""``routing data``: a folder of images before anything is trained; ``routing cache``: what is stored of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from routing.commands.console import table
from routing.config.run import RunConfig
from routing.data import ImageData
from routing.data.augment import image_steps
from routing.data.cache import cache_folder
from routing.data.cache_entries import entries, remove, seconds_of, total
from routing.data.contact_sheet import Row, draw_sheet
from routing.data.decode import FORMATS
from routing.data.files import Files
from routing.data.image_folder import FolderSplits, split_files, view_of
from routing.data.layout import read_layout
from routing.data.reading import read_store
from routing.data.sections import ImageFolderSection
from routing.errors import InputError
from routing.training.seeding import epoch_generator

SHEET_FILE = "contact_sheet.png"
_PER_CLASS = 8  # samples of a class
_CLASSES = 20  # of a table or sheet; the others are counted
_NAMED = 5  # of duplicates
_ENTRY_COLUMNS = {
    "name": "data set",
    "images": "images",
    "size": "pixels",
    "bytes": "on disk",
    "used": "last use",
    "root": "from",
    "entry": "entry",
}


@dataclass(frozen=True)
class Duplicates:
    """Files with the same pixels: pairs in different splits, and how many more there are within one."""

    across: list[tuple[str, str]]
    within: int


def look(
    root: Path, overrides: Sequence[str], *, augment: bool, strict: bool, out: Path, say: Callable[[str], None]
) -> None:
    """Say what is in a folder of class folders, and draw samples of every class.

    Args:
        overrides: keys of a run, as after ``routing train``.
        augment: also show each sample as ``training.augment`` may change it.
        strict: an image in two splits is an error.
        out: folder of the contact sheet.

    Raises:
        InputError: the folder is none of class folders, or, with ``strict``, an image is in two splits.
    """
    named = ["--dataset.name", "image_folder", "--dataset.root", str(root)]
    config = RunConfig.from_yaml(None, [*named, *overrides])
    section = config.dataset
    assert isinstance(section, ImageFolderSection)
    found = split_files(section, read_layout(section.root))
    say(found.line)
    data = section.load()
    table(_balance(data), {"class": "class", **{name: name for name in data.splits}, "share": "share of train"})
    say(_sizes(found.files, section.input_size))
    duplicates = find_duplicates(section, found)
    say(f"wrote {draw_sheet(_rows(data, config, augment), f'{root}, training split', out / SHEET_FILE)}")
    if duplicates.within:
        say(f"{duplicates.within:,} images are there more than once within a split")
    for first, second in duplicates.across[:_NAMED]:
        say(f"the same image in two splits: {first} and {second}")
    if len(duplicates.across) > _NAMED:
        say(f"the same image in two splits: {len(duplicates.across):,} pairs in all")
    if strict and duplicates.across:
        raise InputError(
            f"{root}: {len(duplicates.across):,} images are in two splits; a test on seen images says nothing: "
            "remove one of each"
        )


def find_duplicates(section: ImageFolderSection, found: FolderSplits) -> Duplicates:
    """Return which images are there twice, by the pixels that training would see, whatever the files are called."""
    digests = read_store(section, section.name, found.files, view_of(section)).pixel_digests()
    first: dict[str, tuple[str, int]] = {}
    across, within = [], 0
    for split, rows in found.rows.items():
        for row in rows.tolist():
            digest = digests[row]
            if not digest:
                continue
            other_split, other = first.setdefault(digest, (split, row))
            if other_split != split:
                across.append((found.files.paths[other], found.files.paths[row]))
            elif other != row:
                within += 1
    return Duplicates(across, within)


def _balance(data: ImageData) -> list[dict[str, Any]]:
    """Return rows of images by class and split, the largest classes first."""
    names = data.info.class_names
    counts = {name: split.targets.bincount(minlength=len(names)).tolist() for name, split in data.splits.items()}
    order = sorted(range(len(names)), key=lambda label: -counts["train"][label])
    shown = order if len(order) <= _CLASSES else [*order[: _CLASSES // 2], *order[-_CLASSES // 2 :]]
    whole = max(1, sum(counts["train"]))
    rows: list[dict[str, Any]] = [
        {"class": names[label], **{name: found[label] for name, found in counts.items()}}
        | {"share": f"{counts['train'][label] / whole:.1%}"}
        for label in shown
    ]
    if len(shown) < len(order):
        rows.insert(_CLASSES // 2, {"class": f"... {len(order) - len(shown)} more classes"})
    return rows


def _sizes(files: Files, input_size: int) -> str:
    """Return a line on widths and heights, from the heads of the files."""
    found = []
    for index in range(len(files)):
        try:
            with Image.open(files.absolute(index), formats=FORMATS) as image:
                found.append(image.size)
        except Exception:  # damaged ones were spoken of already
            continue
    sides = np.array(found)
    low, middle, high = (np.percentile(sides, share, axis=0).astype(int) for share in (0, 50, 100))
    small = int((sides.min(axis=1) < input_size).sum())
    line = f"sizes: {low[0]} x {low[1]} to {high[0]} x {high[1]} pixels, median {middle[0]} x {middle[1]}"
    return f"{line}; {small:,} of {len(sides):,} are smaller than dataset.input_size {input_size}" if small else line


def _rows(data: ImageData, config: RunConfig, augment: bool) -> list[Row]:
    steps = None
    if augment:
        steps = image_steps(config.training.augment, data.info, epoch_generator(config.seed, 1, "augment"))
        if steps is None:
            raise InputError(
                "--augment: training.augment changes nothing; switch something on, as --training.augment.flip true"
            )
    split, rows = data["train"], []
    for label, name in list(enumerate(data.info.class_names))[:_CLASSES]:
        numbers = (split.targets == label).nonzero().flatten()[:_PER_CLASS]
        if not len(numbers):
            continue
        images: torch.Tensor = split.images[numbers]
        rows.append(Row(name, _array(images)))
        if steps is not None:
            rows.append(Row(f"{name}, augmented", _array(steps(images))))
    return rows


def _array(images: torch.Tensor) -> NDArray[np.uint8]:
    return np.asarray(images)


def list_cache(*, clear: bool, prune: str | None, say: Callable[[str], None]) -> None:
    """Say what the cache holds; or remove all of it, or what was not used for a while."""
    found = entries()
    if clear or prune is not None:
        limit = time.time() - (0 if prune is None else seconds_of(prune))
        chosen = [entry for entry in found if clear or entry.used < limit]
        count, freed = remove(chosen)
        kept = "" if count == len(chosen) else f"; {len(chosen) - count} are in use and stay"
        say(f"removed {count} entries, {freed / 1e6:,.1f} MB, from {cache_folder()}{kept}")
        return
    if found:
        table([entry.row() for entry in found], _ENTRY_COLUMNS)
    say(f"{cache_folder()}: {len(found)} entries, {total(found)}")
