"""A folder of images and a CSV of boxes: what is in an image is its class, where it lies is known beside the pixels.

An image whose boxes are of several kinds has no one class and is left out; of several boxes the largest is the box.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routing.data import DataInfo, ImageData, Split
from routing.data.files import stat_files
from routing.data.image_folder import MEAN, STD, view_of
from routing.data.reading import read_store
from routing.data.sections import BoxedImagesSection
from routing.data.splitting import cut_by_class
from routing.errors import InputError, choices

COLUMNS = ("image", "width", "height", "label", "xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Boxed:
    """Images of one kind each: ``names``, ``labels`` (N,), ``boxes`` (N, 4) top, left, height, width as shares.

    ``sizes`` (N, 2) are width and height of the images.
    """

    classes: tuple[str, ...]
    names: list[str]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    sizes: NDArray[np.float64]
    left_out: int


def info(section: BoxedImagesSection) -> DataInfo:
    """Describe the data from the CSV."""
    return _info(section, read_boxes(section.root / section.boxes))


def describe(section: BoxedImagesSection) -> str:
    """Return one line: images per class, and how many were left out."""
    found = read_boxes(section.root / section.boxes)
    counts = np.bincount(found.labels, minlength=len(found.classes))
    kinds = ", ".join(f"{name} {count:,}" for name, count in zip(found.classes, counts.tolist(), strict=True))
    return (
        f"data: {section.root}, {len(found.names):,} images ({kinds}); {found.left_out:,} with several kinds left out"
    )


def load(section: BoxedImagesSection) -> ImageData:
    """Return train, val and test, cut class by class by seed; ``extra["box"]`` is in pixels of the resized image."""
    found = read_boxes(section.root / section.boxes)
    paths = [str(Path(section.images) / name) for name in found.names]
    try:
        files = stat_files(section.root, paths)
    except OSError as error:
        raise InputError(f"{error.filename}: named in {section.boxes}, but {error.strerror}") from None
    cut = cut_by_class(
        found.labels,
        section.seed,
        val_fraction=section.val_fraction,
        test_fraction=section.test_fraction,
        num_train=section.num_train,
    )
    store = read_store(section, section.name, files, view_of(section))
    import torch  # only now: the processes that decode need none

    from routing.data.found import load_files

    data = load_files(section, _info(section, found), store, files, cut, cut)  # targets: rows, for now
    boxes = torch.from_numpy(view_of(section).boxes(found.boxes, found.sizes)).float()
    labels = torch.from_numpy(found.labels)
    splits = {
        name: Split(split.images, labels[split.targets], {"box": boxes[split.targets]}, split.on_device)
        for name, split in data.splits.items()
    }
    digest = hashlib.sha256(data.key.encode() + found.labels.tobytes() + found.boxes.tobytes())
    return replace(data, splits=splits, key=digest.hexdigest())


def read_boxes(file: Path) -> Boxed:
    """Return the images of a CSV that hold one kind of object.

    Raises:
        InputError: no such file, a column that is missing, or a box that is none.
    """
    kinds: dict[str, set[str]] = {}
    largest: dict[str, tuple[float, float, float, float]] = {}
    sizes: dict[str, tuple[float, float]] = {}
    for image, size, label, box in _rows(file):
        kinds.setdefault(image, set()).add(label)
        sizes[image] = size
        if image not in largest or box[2] * box[3] > largest[image][2] * largest[image][3]:
            largest[image] = box
    names = sorted(image for image, found in kinds.items() if len(found) == 1)
    classes = tuple(sorted({next(iter(kinds[name])) for name in names}))
    if len(classes) < 2:
        raise InputError(f"{file}: needs images of at least two kinds, found {choices(classes) or 'none'}")
    labels = np.array([classes.index(next(iter(kinds[name]))) for name in names], np.int64)
    boxes, shapes = (np.array([of[name] for name in names]) for of in (largest, sizes))
    return Boxed(classes, names, labels, boxes, shapes, len(kinds) - len(names))


def _rows(file: Path) -> Iterator[tuple[str, tuple[float, float], str, tuple[float, float, float, float]]]:
    """Yield image, width and height, label and box (top, left, height, width as shares of the image) of every line."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a readable list of boxes: {error}") from None
    reader = csv.DictReader(text.splitlines())
    try:
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"{file}: not a readable list of boxes: {error}") from None
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{file}: no column '{missing[0]}' (needed: {choices(COLUMNS)})")
    for line, row in enumerate(rows, start=2):
        try:
            width, height, left, top, right, bottom = (
                float(row[name]) for name in ("width", "height", "xmin", "ymin", "xmax", "ymax")
            )
        except (TypeError, ValueError):
            raise InputError(f"{file}, line {line}: a width, height or corner is not a number") from None
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise InputError(f"{file}, line {line}: the box is not inside its image of {width:g} x {height:g} pixels")
        share = (top / height, left / width, (bottom - top) / height, (right - left) / width)
        yield row["image"], (width, height), row["label"], share


def _info(section: BoxedImagesSection, found: Boxed) -> DataInfo:
    return DataInfo(
        task="classification",
        channels=3,
        input_size=section.input_size,
        num_outputs=len(found.classes),
        mean=MEAN,
        std=STD,
        class_names=found.classes,
        patch_grid_size=section.patch_grid_size,
        patch_margin=section.patch_margin,
        facts=("box",),
    )
