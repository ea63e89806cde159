"""MNIST and Fashion-MNIST: 70,000 grey images of 28 x 28 pixels, through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from routing.data import DataInfo, ImageData, torchvision_data
from routing.data.sections import MnistSection

SOURCES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
}
MEAN, STD = (
    {"mnist": 0.1307, "fashion_mnist": 0.2860},
    {"mnist": 0.3081, "fashion_mnist": 0.3530},
)  # of the training set
HEADER = {"images": (16, 28 * 28), "labels": (8, 1)}  # bytes of an IDX file's header, and of one entry
ENTRIES = {"train": 60_000, "t10k": 10_000}


def info(section: MnistSection) -> DataInfo:
    """Describe the data without reading it."""
    names = CLASS_NAMES[section.name]
    return DataInfo(
        task="classification",
        channels=1,
        input_size=section.input_size,
        num_outputs=len(names),
        mean=(MEAN[section.name],),
        std=(STD[section.name],),
        class_names=names,
        patch_grid_size=section.patch_grid_size,
        patch_margin=section.patch_margin,
    )


def load(section: MnistSection) -> ImageData:
    """Return train, val (cut from train by seed) and test; see ``torchvision_data.load``."""
    return torchvision_data.load(section, info(section), SOURCES[section.name], _check)


def _check(source: type[Any], root: Path) -> str | None:
    """torchvision knows checksums of the compressed files only; the unpacked ones must have their exact length."""
    folder = root / source.__name__ / "raw"
    for split, entries in ENTRIES.items():
        for kind, (header, size) in HEADER.items():
            path = folder / f"{split}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
            if not path.is_file():
                return f"dataset.root {root}: no file {path.relative_to(root)}"
            if path.stat().st_size != header + entries * size:
                return f"{path}: damaged, it has {path.stat().st_size} bytes instead of {header + entries * size}"
    return None
