"""Any folder of class folders (with ``train/`` above them, or alone): splits, classes, and their images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routing.data import SPLITS, DataInfo, ImageData
from routing.data.files import Files, list_images
from routing.data.layout import ALL, Layout, assign, read_layout
from routing.data.quality_sections import Koniq10kSection
from routing.data.reading import read_store
from routing.data.sections import BoxedImagesSection, ImageFolderSection
from routing.data.splitting import cut_by_class, cut_by_seed
from routing.data.view import View
from routing.errors import choices

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, the usual default for photographs

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FolderSplits:
    """``files`` in use; ``rows`` of them and ``labels`` for every split, int64 (M,); ``line`` says all of it."""

    files: Files
    rows: dict[str, Rows]
    labels: dict[str, Rows]
    line: str


def info(section: ImageFolderSection) -> DataInfo:
    """Describe the data from the names of the class folders."""
    return _info(section, read_layout(section.root))


def describe(section: ImageFolderSection) -> str:
    """Return one line: images and classes of every split, where each comes from, and at which size they are seen."""
    side = section.input_size
    return f"{split_files(section, read_layout(section.root)).line}; seen at {side} x {side} pixels"


def load(section: ImageFolderSection, view: View | None = None) -> ImageData:
    """Return train, val and test.

    Without ``val/`` it is cut from train by seed, class by class; without ``test/`` there is none. A root of class
    folders only is cut into all three.

    Args:
        view: how files become pixels, where not as the section says.
    """
    layout = read_layout(section.root)
    found = split_files(section, layout)
    store = read_store(section, section.name, found.files, view or view_of(section))
    from routing.data.found import load_files  # torch: only now

    return load_files(section, _info(section, layout), store, found.files, found.rows, found.labels)


def view_of(section: ImageFolderSection | BoxedImagesSection | Koniq10kSection) -> View:
    """Return how the section's files become pixels."""
    depth = None if section.bit_depth == "auto" else section.bit_depth
    side, crop_pct, mean = section.input_size, 1.0, MEAN
    if isinstance(section, ImageFolderSection):
        crop_pct, mean = section.crop_pct, section.mean
    return View(
        side,
        side,
        section.background_rgb,
        depth,
        resize="shortest" if section.resize == "auto" else section.resize,  # auto without a model
        crop_pct=crop_pct,
        interpolation=section.interpolation,
        fill=padding(mean) if section.resize == "longest_pad" else (0, 0, 0),
    )


def padding(mean: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return the colour of a mean of pixels in [0, 1]."""
    red, green, blue = (round(255 * value) for value in mean)
    return red, green, blue


def split_files(section: ImageFolderSection, layout: Layout) -> FolderSplits:
    """Return which files are in which split, without decoding any."""
    listing = list_images(section.root)
    found = assign(layout, listing)
    labels = {name: values for name, values in found.labels.items() if name != ALL}
    rows = {name: values for name, values in found.rows.items() if name != ALL}
    origins = {name: f"{layout.splits[name]}/" for name in rows}
    source = ALL if ALL in found.rows else "train"
    cut = _cut(section, found.labels[source], has_val="val" in rows, is_all=source == ALL)
    for name, order in cut.items():
        rows[name], labels[name] = found.rows[source][order], found.labels[source][order]
        if name != "train":
            share = section.val_fraction if name == "val" else section.test_fraction
            origins[name] = f"{share:g} of {_folder(layout, source)}, by dataset.seed {section.seed}"
        elif section.num_train is not None or len(cut) > 1:
            origins[name] = f"{'the rest' if section.num_train is None else 'drawn'} of {_folder(layout, source)}"
    rng = np.random.default_rng([section.seed, 1])
    for name in ("val", "test"):  # no split class by class: its first images stand for all in places
        if name in rows and name not in cut:
            order = rng.permutation(len(rows[name]))
            rows[name], labels[name] = rows[name][order], labels[name][order]
    names = [name for name in SPLITS if name in rows]
    files = listing.files()
    used = np.unique(np.concatenate([rows[name] for name in names]))
    if len(used) < len(files):
        files, rows = files.subset(used), {name: np.searchsorted(used, rows[name]) for name in names}
    line = _line(section, layout.classes, labels, origins, [*found.notes, *_absent(layout.classes, labels)])
    return FolderSplits(files, {name: rows[name] for name in names}, labels, line)


def _folder(layout: Layout, source: str) -> str:
    return f"{layout.splits[source]}/" if layout.splits[source] else "every class"


def _info(section: ImageFolderSection, layout: Layout) -> DataInfo:
    return DataInfo(
        task="classification",
        channels=3,
        input_size=section.input_size,
        num_outputs=len(layout.classes),
        mean=section.mean,
        std=section.std,
        class_names=layout.classes,
        patch_grid_size=section.patch_grid_size,
        patch_margin=section.patch_margin,
    )


def _cut(section: ImageFolderSection, labels: Rows, *, has_val: bool, is_all: bool) -> dict[str, Rows]:
    if has_val and section.num_train is None:
        return cut_by_seed(len(labels), section.seed, val_fraction=0.0)
    return cut_by_class(
        labels,
        section.seed,
        val_fraction=0.0 if has_val else section.val_fraction,
        test_fraction=section.test_fraction if is_all else 0.0,
        num_train=section.num_train,
    )


def _absent(classes: tuple[str, ...], labels: dict[str, Rows]) -> list[str]:
    """Return notes on classes that a split has no image of; without training images a class is never predicted."""
    notes = []
    for name in SPLITS:
        if name in labels:
            counts = np.bincount(labels[name], minlength=len(classes))
            missing = [classes[label] for label in np.flatnonzero(counts == 0)]
            if missing:
                more = f", ... {len(missing)} classes" if len(missing) > 5 else ""
                notes.append(f"no {name} images of {choices(missing[:5])}{more}")
    return notes


def _line(
    section: ImageFolderSection,
    classes: tuple[str, ...],
    labels: dict[str, Rows],
    origins: dict[str, str],
    notes: list[str],
) -> str:
    parts = [f"{name} {len(labels[name]):,} ({origins[name]})" for name in SPLITS if name in labels]
    text = f"data: {section.root}, {len(classes)} classes; images: {', '.join(parts)}"
    return "; ".join([text, *notes])
