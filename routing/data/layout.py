"""Which images of a folder belong to which split and class, by the names of folders; nothing is left out in silence."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routing.data.decode import EXTENSIONS
from routing.data.files import Folder, Listing, visible
from routing.errors import InputError, choices, nearest

ALL = ""  # the split of a root that holds class folders only

_WORDS = {"train": "train|training", "val": "val|valid|validation|dev", "test": "test|testing"}
_FURTHER = r"(?:[ _.-]?(?:set|split|data|images|imgs|\d+))*"
_NAMES = {split: re.compile(f"(?:{words}){_FURTHER}", re.IGNORECASE) for split, words in _WORDS.items()}
_PART = re.compile(rf"(?:^|[^a-z])(?:{'|'.join(_WORDS.values())})(?:[^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """The folders of a root: ``splits`` maps a split to the path of its folder, "" where the root has classes alone."""

    root: Path
    splits: dict[str, str]
    classes: tuple[str, ...]


@dataclass
class Assigned:
    """``rows`` of the listed files and their ``labels`` for every split, int64 (M,); ``notes`` say what is not used."""

    rows: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    labels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def split_of(name: str) -> str | None:
    """Return the split that a folder's name stands for (``Train``, ``valid``, ``test_set``), or None."""
    return next((split for split, pattern in _NAMES.items() if pattern.fullmatch(name)), None)


def read_layout(root: Path) -> Layout:
    """Return splits and classes of a root, from the names of its folders.

    Raises:
        InputError: there is no such folder, a split is there twice, or there are fewer than two classes.
    """
    if not root.is_dir():
        raise InputError(f"dataset.root {root}: no such folder; it must hold train/<class>/ with images")
    splits = _splits(root)
    folder = root / splits.get("train", "")
    classes = tuple(sorted(_folders(folder)))
    if len(classes) < 2:
        loose = sum(1 for _ in _images(folder))
        seen = (choices(classes) or "no folder") + (f"; images outside of class folders: {loose:,}" if loose else "")
        raise InputError(
            f"{folder}: needs at least two class folders, found {len(classes)} ({seen})"
            f"{_further_down(folder, classes)}; dataset.root must hold train/<class>/ or <class>/ with images"
        )
    return Layout(root, splits, classes)


def assign(layout: Layout, listing: Listing) -> Assigned:
    """Return which of the listed files belong to which split and class.

    Raises:
        InputError: images where no class is, a class that train does not have, a class or split without images.
    """
    found, groups = Assigned(), _by_split(layout, listing)
    first = np.cumsum([0, *(len(folder.names) for folder in listing.folders)])
    for split, path in layout.splits.items():
        where, numbers = layout.root / path, groups.pop(split)
        if split == "test" and _is_flat(listing, numbers, path):
            count = sum(len(listing.folders[number].names) for number in numbers)
            found.notes.append(f"{path}/ not used: {count:,} images without class folders")
            continue
        rows, labels = [], []
        for number in numbers:
            folder = listing.folders[number]
            below = os.path.relpath(folder.path, path) if path else folder.path
            if folder.names or _depth(below) == 1:
                rows.append(np.arange(first[number], first[number + 1]))
                labels.append(np.full(len(folder.names), _label(below, folder, where, layout.classes), np.int64))
        found.rows[split] = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
        found.labels[split] = np.concatenate([*labels, np.empty(0, np.int64)])
        _check_classes(found.labels[split], where, layout.classes, every_class=split in ("train", ALL))
    found.notes += _strays(layout, listing, groups.pop(None, []))
    found.notes += _unread(listing)
    return found


def _splits(root: Path) -> dict[str, str]:
    """Return the folder of every split; a root of class folders is one split without a name."""
    folders = sorted(_folders(root))
    named: dict[str, list[str]] = {}
    for name in folders:
        split = split_of(name)
        if split is not None:
            named.setdefault(split, []).append(name)
    others = [name for name in folders if split_of(name) is None]
    if named and others and _are_classes(root, [*(name for names in named.values() for name in names), *others]):
        named = {}  # a class may be called train
    for split, names in named.items():
        if len(names) > 1:
            raise InputError(f"dataset.root {root}: '{names[0]}' and '{names[1]}' are both the {split} split; keep one")
    if named and "train" not in named:
        raise InputError(f"dataset.root {root}: it has '{next(iter(named.values()))[0]}' but no folder 'train'")
    if named:
        return {split: named[split][0] for split in _WORDS if split in named}
    odd = [name for name in folders if _PART.search(name) and _folders(root / name)]
    if odd:
        raise InputError(
            f"dataset.root {root}: '{odd[0]}' holds folders and is named like a split; call the folders of splits "
            "train, val and test"
        )
    return {ALL: ""}


def _are_classes(root: Path, names: Sequence[str]) -> bool:
    """Return whether every one of these folders holds images and no folder: then ``train`` is a class beside others."""
    return all(not _folders(root / name) and any(_images(root / name)) for name in names)


def _by_split(layout: Layout, listing: Listing) -> dict[str | None, list[int]]:
    """Return the numbers of the listed folders by split; None: outside every split."""
    at = {path: split for split, path in layout.splits.items()}
    groups: dict[str | None, list[int]] = {split: [] for split in layout.splits}
    for number, folder in enumerate(listing.folders):
        split = ALL if ALL in layout.splits else at.get(folder.path.split(os.sep, 1)[0])
        groups.setdefault(split, []).append(number)
    return groups


def _label(below: str, folder: Folder, where: Path, classes: Sequence[str]) -> int:
    """Return the class of the images of a folder ``below`` that of a split."""
    parts = below.split(os.sep)
    if _depth(below) == 0:
        raise InputError(
            f"{where}: {len(folder.names)} of its images lie in no class folder ({_few(folder.names[:3])}); every "
            "image belongs below the folder of its class"
        )
    if parts[0] not in classes:
        raise InputError(
            f"{where}: class folder '{parts[0]}' is not in train/{nearest(parts[0], classes)} (valid: {_few(classes)})"
        )
    inner = next((part for part in parts[1:] if split_of(part)), None)
    if inner is not None:
        raise InputError(
            f"{where / below}: a split inside a class folder; dataset.root must hold {split_of(inner)}/<class>/"
        )
    return classes.index(parts[0])


def _check_classes(labels: NDArray[np.int64], where: Path, classes: Sequence[str], every_class: bool) -> None:
    if not len(labels):
        raise InputError(f"{where}: no images in its class folders (extensions: {choices(EXTENSIONS)})")
    counts = np.bincount(labels, minlength=len(classes))
    if every_class and not counts.all():
        raise InputError(
            f"{where / classes[int(counts.argmin())]}: no images in this class folder (extensions: "
            f"{choices(EXTENSIONS)}); add some, or remove the folder"
        )


def _is_flat(listing: Listing, numbers: Sequence[int], path: str) -> bool:
    """Return whether all images of a split lie in its own folder: a test split without class labels."""
    return all(not listing.folders[n].names or listing.folders[n].path == path for n in numbers) and any(
        listing.folders[n].names for n in numbers
    )


def _strays(layout: Layout, listing: Listing, numbers: Sequence[int]) -> list[str]:
    """Return notes on images beside the splits; a folder of them is refused: it may be a split by another name."""
    for number in numbers:
        folder = listing.folders[number]
        if folder.names and folder.path:
            name = folder.path.split(os.sep, 1)[0]
            raise InputError(
                f"dataset.root {layout.root}: folder '{name}' beside train holds images and is no split"
                f"{nearest(name, '|'.join(_WORDS.values()).split('|'))} (valid: {choices(_WORDS)}); rename it, or "
                "move it away"
            )
    loose = [name for number in numbers for name in listing.folders[number].names]
    return [f"not used: {len(loose):,} images beside the splits ({_few(loose)})"] if loose else []


def _unread(listing: Listing) -> list[str]:
    others: Counter[str] = Counter()
    for folder in listing.folders:
        others.update(folder.others)
    return [f"not used: {count:,} {suffix} files, which are not read" for suffix, count in sorted(others.items())]


def _further_down(folder: Path, classes: Sequence[str]) -> str:
    """Return a hint where a single subfolder holds the data, as after unpacking many archives."""
    if len(classes) == 1 and len(_folders(folder / classes[0])) >= 2:
        return f"; did you mean {folder / classes[0]}?"
    return ""


def _depth(below: str) -> int:
    return 0 if below in ("", ".") else below.count(os.sep) + 1


def _few(names: Sequence[str]) -> str:
    return choices(names[:10]) + (f", ... {len(names)} in all" if len(names) > 10 else "")


def _folders(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if visible(entry) and entry.is_dir()}


def _images(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (e.name for e in entries if visible(e) and e.name.lower().endswith(EXTENSIONS))
