"""Any folder of class folders (with ``train/`` above them, or alone), resized once and cached as uint8."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from routing.data import SPLITS, DataInfo, ImageData
from routing.data.cache import Arrays, cached_data
from routing.data.decode import upright_rgb
from routing.data.sections import ImageFolderSection
from routing.data.splitting import cut_by_seed
from routing.errors import InputError, choices, nearest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, the usual default for photographs
VERSION = 4  # raise when reading changes: cached arrays of an older version are then not used
ALL = ""  # the split of a root that holds class folders only

Files = list[tuple[str, int]]
"""Image files with their class; plain strings, because every trial lists them anew to know its cache entry."""


def info(section: ImageFolderSection) -> DataInfo:
    """Describe the data from the names of the class folders."""
    classes = _classes(section.root)
    return DataInfo(
        task="classification",
        channels=3,
        input_size=section.input_size,
        num_outputs=len(classes),
        mean=MEAN,
        std=STD,
        class_names=classes,
        patch_grid_size=section.patch_grid_size,
        patch_margin=section.patch_margin,
    )


def load(section: ImageFolderSection) -> ImageData:
    """Return train, val and test.

    Without ``val/`` it is cut from train by seed; without ``test/`` there is none. A root of class folders only is cut
    into all three by seed.
    """
    described = info(section)
    files = {
        name: _files(folder, described.class_names, every_class=name in ("train", ALL))
        for name, folder in _folders(section.root).items()
    }
    key = {
        "version": VERSION,
        **section.model_dump(mode="json", exclude={"name", "root", "patch_grid_size", "patch_margin"}),
        "files": _digest(files),
    }
    return cached_data(described, "image_folder", key, lambda: _read_all(section, files))


def _digest(files: dict[str, Files]) -> str:
    """Return what a renamed, moved, added, removed or rewritten image changes, wherever the folder lies."""
    found = hashlib.sha256()
    for name, listed in files.items():
        for path, label in listed:
            status = os.stat(path)
            line = (name, label, path.rpartition(os.sep)[2], status.st_size, status.st_mtime_ns)
            found.update(repr(line).encode())
    return found.hexdigest()


def _folders(root: Path) -> dict[str, Path]:
    """Return the folder of every split; a root of class folders is one split without a name."""
    if not root.is_dir():
        raise InputError(f"dataset.root {root}: no such folder; it must hold train/<class>/ with images")
    found = {name: root / name for name in SPLITS if (root / name).is_dir()}
    if "train" in found:
        return found
    if found:
        raise InputError(f"dataset.root {root}: it has '{next(iter(found))}' but no folder 'train'")
    return {ALL: root}


def _classes(root: Path) -> tuple[str, ...]:
    folders = _folders(root)
    folder = folders.get("train", root)
    classes = tuple(sorted(_class_folders(folder)))
    if len(classes) < 2:
        raise InputError(
            f"{folder}: needs at least two class folders, found {len(classes)} ({choices(classes) or 'no folder'}); "
            "dataset.root must hold train/<class>/ or <class>/ with images"
        )
    return classes


def _files(folder: Path, classes: Sequence[str], every_class: bool) -> Files:
    """Return (file, class index) of one split, in a fixed order.

    A class folder that ``train`` does not have is an error, and so is one without images where ``every_class`` must
    have some.
    """
    unknown = sorted(_class_folders(folder) - set(classes))
    if unknown:
        raise InputError(
            f"{folder}: class folder '{unknown[0]}' is not in train/{nearest(unknown[0], classes)} "
            f"(valid: {choices(classes)})"
        )
    found = [
        (os.path.join(folder, name, file), label)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for file in sorted(os.listdir(folder / name))
        if file.lower().endswith(EXTENSIONS)
    ]
    if not found:
        raise InputError(f"{folder}: no images in its class folders (extensions: {choices(EXTENSIONS)})")
    empty = sorted(set(range(len(classes))) - {label for _, label in found})
    if empty and every_class:
        raise InputError(
            f"{folder / classes[empty[0]]}: no images in this class folder (extensions: {choices(EXTENSIONS)}); add "
            "some, or remove the folder"
        )
    return found


def _class_folders(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}


def _read_all(section: ImageFolderSection, files: dict[str, Files]) -> Arrays:
    declared = dict(files)
    found = declared.pop(ALL, None) or declared.pop("train")
    cut = cut_by_seed(
        len(found),
        section.seed,
        val_fraction=0.0 if "val" in declared else section.val_fraction,
        test_fraction=section.test_fraction if ALL in files else 0.0,
        num_train=section.num_train,
    )
    drawn = {name: [found[index] for index in indices] for name, indices in cut.items()}
    rng = np.random.default_rng([section.seed, 1])
    for name, listed in declared.items():  # no split class by class: its first images stand for all in places
        drawn[name] = [listed[index] for index in rng.permutation(len(listed))]
    return {name: _read(listed, section.input_size) for name, listed in drawn.items()}


def _read(files: Files, size: int) -> dict[str, NDArray[np.generic]]:
    images = np.empty((len(files), 3, size, size), np.uint8)
    for row, (path, _) in zip(images, files, strict=True):
        row[:] = _read_image(path, size).transpose(2, 0, 1)
    return {"images": images, "targets": np.array([label for _, label in files], np.int64)}


def _read_image(path: str, size: int) -> NDArray[np.uint8]:
    """Return one image (size, size, 3), upright as its camera says."""
    try:
        with Image.open(path) as image:
            return np.asarray(upright_rgb(image).resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image: {' '.join(str(error).split())}") from None
