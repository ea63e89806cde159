"""KonIQ-10k and data in its form: a folder of photographs and a CSV with one row per photograph.

    image_name,c1,...,MOS,SD,set        set: training | validation | test

Photographs are read as those of an image folder are; see ``routing.data.found``.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from routing.data import SPLITS, DataInfo, ImageData, image_folder
from routing.data.files import stat_files
from routing.data.image_folder import MEAN, STD
from routing.data.quality_sections import Koniq10kSection, ScoredFolder, ScoreSplit
from routing.data.reading import read_store
from routing.data.splitting import Indices, cut_by_seed
from routing.data.store import Store
from routing.data.view import View
from routing.errors import InputError, choices, nearest

SPLIT_OF_SET = {"training": "train", "validation": "val", "test": "test"}
NAMED = 5  # images an error names; it counts the rest


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


def view_of(section: Koniq10kSection) -> View:
    """Return how the section's files become pixels."""
    return replace(image_folder.view_of(section), width=section.input_width)


def load(section: Koniq10kSection) -> ImageData:
    """Return the official splits, and ``cross`` where a second data set is given.

    Raises:
        InputError: wrong columns, MOS out of range, an image in two splits, images missing or corrupt.
    """
    rows = read_scores(section, "dataset")
    if section.cross_test is not None:
        rows["cross"] = read_scores(section.cross_test, "dataset.cross_test", split="cross")["cross"]
    view = view_of(section)
    every = sorted({row.path for split in rows.values() for row in split})  # one store, however they are cut
    place = {path: number for number, path in enumerate(every)}
    files = stat_files(section.root, [os.path.relpath(path, section.root) for path in every])
    numbers = {name: np.array([place[row.path] for row in split]) for name, split in rows.items()}
    targets = {name: np.array([row.quality for row in split], np.float32) for name, split in rows.items()}
    store = read_store(section, "koniq", files, view)
    _check_distinct(store, rows, numbers)
    from routing.data.found import load_files  # torch: only now

    return load_files(section, info(section), store, files, numbers, targets)


def describe(section: Koniq10kSection) -> str:
    """Return one line: images of every split, and where each comes from."""
    rows = read_scores(section, "dataset")
    how = split_of(section)
    words = {name: word for word, name in SPLIT_OF_SET.items()}
    parts = [
        f"{name} {len(split):,}" + (f" (set {words[name]})" if how is None else "")
        for name, split in rows.items()
        if split
    ]
    if how is not None:
        whole = "" if how.group is None else f", rows of one {how.group} together"
        parts[-1] += f" (cut by dataset.seed {section.seed}{whole})"
    cross = section.cross_test
    parts += [] if cross is None else [f"cross (every row of {cross.root / cross.csv})"]
    return f"data: {section.root / section.csv}; images: {', '.join(parts)}"


def read_scores(folder: ScoredFolder, key: str, split: str | None = None) -> dict[str, list[ScoredImage]]:
    """Return the rows of a CSV by split; every image is there, none is in two splits.

    Args:
        folder: where CSV and images are, the names of its columns, and the scale of the MOS.
        key: the configuration's key of ``folder``, for errors.
        split: put all rows into this split instead of asking the column of sets.
    """
    path, images = folder.root / folder.csv, folder.root / folder.images
    if not path.is_file():
        raise InputError(f"{key}.csv: {path}: no such file (KonIQ-10k's is koniq10k_distributions_sets.csv)")
    if not images.is_dir():
        raise InputError(f"{key}.images: {images}: no such folder (KonIQ-10k's are 1024x768 and 512x384)")
    how = split_of(folder) if split is None else None
    columns = folder.columns
    wanted = [columns.image, columns.score]
    wanted += [columns.set] if split is None and how is None else [how.group] if how is not None and how.group else []
    images_found: list[ScoredImage] = []
    words, groups = [], []
    seen: dict[str, str] = {}
    for line, row in _rows(path, wanted):
        where = f"{path}:{line}"
        name = _plain_name(row[columns.image], where)
        word = split or ("" if how is not None else _split_of(row[columns.set], where))
        if name in seen:
            both = f"set {word} twice" if word else "the CSV twice"
            both = f"sets {seen[name]} and {word}" if seen[name] != word else both
            raise InputError(f"{where}: image '{name}' is in {both}; a test on seen images says nothing")
        seen[name] = word
        words.append(word)
        groups.append(row[how.group] if how is not None and how.group else name)
        images_found.append(ScoredImage(name, images / name, _quality(row[columns.score], name, folder, where)))
    if not images_found:
        raise InputError(f"{path}: no row")
    found: dict[str, list[ScoredImage]] = {name: [] for name in (SPLITS if split is None else (split,))}
    for scored, word in zip(images_found, words if how is None else _cut(groups, how, folder), strict=True):
        found[word].append(scored)
    _check_splits(found, path)
    _check_scale([scored.quality for scored in images_found], folder, f"{path}: {key}")
    missing = [scored.name for scored in images_found if not scored.path.is_file()]
    if missing:
        raise InputError(f"{images}: {_named(missing, len(seen))} missing")
    return {name: split_rows for name, split_rows in found.items() if split_rows}


def split_of(folder: ScoredFolder) -> ScoreSplit | None:
    """Return how the images are cut by seed: as the configuration asks, or where the CSV says no sets."""
    if not isinstance(folder, Koniq10kSection):
        return None
    if folder.split is not None:
        return folder.split
    path = folder.root / folder.csv
    asked = "set" in folder.columns.model_fields_set
    return None if asked or folder.columns.set in _header(path) or not _header(path) else ScoreSplit()


def _cut(groups: Sequence[str], how: ScoreSplit, folder: ScoredFolder) -> list[str]:
    """Return the split of every row; equal groups share one."""
    assert isinstance(folder, Koniq10kSection)
    names = sorted(set(groups))  # whatever the order of the rows
    cut = cut_by_seed(len(names), folder.seed, val_fraction=how.val_fraction, test_fraction=how.test_fraction)
    split_of_group = {names[index]: split for split, indices in cut.items() for index in indices}
    return [split_of_group[group] for group in groups]


def _header(path: Path) -> Sequence[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return csv.DictReader(file).fieldnames or []
    except (UnicodeDecodeError, csv.Error):
        return []  # reading the rows reports it


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
        if not rows and name != "test":  # none is needed to train
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


def _check_distinct(store: Store, rows: dict[str, list[ScoredImage]], numbers: dict[str, Indices]) -> None:
    """Refuse one photograph in two splits, also under two names: a test on seen images is meaningless."""
    digests = list(store.pixel_digests())
    seen: dict[str, tuple[str, str]] = {}
    for split, images in rows.items():
        of_images = [digests[number] for number in numbers[split]]
        found = {digest: (split, row.name) for row, digest in zip(images, of_images, strict=True) if digest}
        for digest, (_, name) in found.items():
            if digest in seen:
                other_split, other = seen[digest]
                raise InputError(f"'{name}' of set {split} is the same photograph as '{other}' of set {other_split}")
        seen |= found
