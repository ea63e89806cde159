"""Any folder of class folders (``root/train/<class>/*``), resized once and cached as memory-mapped uint8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from routing.data import DataInfo, ImageData
from routing.data.cache import Arrays, cached_splits
from routing.data.sections import ImageFolderSection
from routing.errors import InputError, choices

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, the usual default for photographs
VERSION = 1


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
    """Return train, val and test. Without ``val/`` it is cut from train by seed; without ``test/`` there is none."""
    described = info(section)
    files = {name: _files(section.root / name, described.class_names) for name in ("train", "val", "test")}
    newest = max(file.stat().st_mtime_ns for found in files.values() for file, _ in found)
    key = {
        "version": VERSION,
        **section.model_dump(mode="json", exclude={"name", "patch_grid_size", "patch_margin"}),
        "root": str(section.root.resolve()),
        "counts": {name: len(found) for name, found in files.items()},
        "newest": newest,
    }
    return ImageData(described, cached_splits("image_folder", key, lambda: _read_all(section, files)))


def _classes(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise InputError(f"dataset.root {root}: no such folder; it must hold train/<class>/ with images")
    train = root / "train"
    if not train.is_dir():
        found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())[:8]
        raise InputError(f"dataset.root {root}: it has no folder 'train' (found: {choices(found) or 'no folder'})")
    classes = tuple(sorted(entry.name for entry in train.iterdir() if entry.is_dir()))
    if len(classes) < 2:
        raise InputError(f"{train}: needs at least two class folders, found {len(classes)}")
    return classes


def _files(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Return (file, class index) of one split, in a fixed order; an unknown class folder is an error."""
    if not folder.is_dir():
        return []
    unknown = sorted({entry.name for entry in folder.iterdir() if entry.is_dir()} - set(classes))
    if unknown:
        raise InputError(f"{folder}: class folder '{unknown[0]}' is not in train/ (valid: {choices(classes)})")
    found = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in EXTENSIONS
    ]
    if not found:
        raise InputError(f"{folder}: no images in its class folders (extensions: {choices(sorted(EXTENSIONS))})")
    return found


def _read_all(section: ImageFolderSection, files: dict[str, list[tuple[Path, int]]]) -> Arrays:
    if not files["val"]:
        order = np.random.default_rng([section.seed, 0]).permutation(len(files["train"]))
        cut = max(1, round(section.val_fraction * len(order)))
        train = files["train"]
        files = {**files, "val": [train[i] for i in order[:cut]], "train": [train[i] for i in order[cut:]]}
    return {name: _read(found, section.input_size) for name, found in files.items() if found}


def _read(files: list[tuple[Path, int]], size: int) -> dict[str, NDArray[np.generic]]:
    images = np.empty((len(files), 3, size, size), np.uint8)
    for row, (path, _) in zip(images, files, strict=True):
        try:
            with Image.open(path) as image:
                small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: not a readable image: {str(error).splitlines()[0]}") from None
        row[:] = np.asarray(small).transpose(2, 0, 1)
    return {"images": images, "targets": np.array([label for _, label in files], np.int64)}
