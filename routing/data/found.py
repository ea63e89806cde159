"""Data sets of image files: their splits as rows of one store, or as files that are decoded in every epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from routing.data import DataInfo, ImageData, Split
from routing.data.files import Files
from routing.data.images import FileImages, LazyImages, StoredImages
from routing.data.progress import note
from routing.data.sections import FileImagesSection
from routing.data.store import ENTRY_FILE, Store, check_damaged, open_store, usable_cpus
from routing.data.view import View
from routing.errors import InputError

_MOST_WORKERS = 8  # of one trial that decodes in every epoch
_LISTED = 10
_SAID: set[Path] = set()  # stores that were spoken of


def load_files(
    section: FileImagesSection,
    name: str,
    info: DataInfo,
    files: Files,
    rows: Mapping[str, NDArray[np.int64]],
    targets: Mapping[str, NDArray[np.generic]],
    view: View,
) -> ImageData:
    """Return a data set of files.

    Args:
        name: of the data set, for its entry of the cache.
        rows: of ``files`` for every split, int64 (M,).
        targets: (M,) for every split.

    Raises:
        InputError: see ``read_store``.
    """
    store = read_store(section, name, files, view)
    digest = hashlib.sha256(store.key.encode())
    splits = {}
    for split in rows:
        sound = np.array([row not in store.damaged for row in rows[split].tolist()], bool)
        if not sound.any():
            raise InputError(f"dataset.on_damaged skip: every image of the split {split} is damaged")
        kept, values = rows[split][sound], targets[split][sound]
        digest.update(split.encode() + kept.astype("<i8").tobytes() + np.ascontiguousarray(values).tobytes())
        splits[split] = Split(
            _images(section, store, files, kept), torch.from_numpy(values.copy()), on_device=section.on_device
        )
    return ImageData(info, splits, digest.hexdigest())


def read_store(section: FileImagesSection, name: str, files: Files, view: View) -> Store:
    """Return the decoded files; what a person should know of them is said once in a process.

    Raises:
        InputError: a file is damaged, and ``dataset.on_damaged`` does not leave such files out.
    """
    store = open_store(name, files, view, keep=section.storage == "cache", workers=section.workers)
    if section.on_damaged == "error":
        check_damaged(store, files)
    if store.folder not in _SAID:
        _SAID.add(store.folder)
        if store.brightest:
            depth = store.view.bit_depth
            note(f"{name}: wide grey values, up to {store.brightest:,}, are read as {depth} bits (dataset.bit_depth)")
        for row, why in sorted(store.damaged.items())[:_LISTED]:
            note(f"{name}: left out: {files.absolute(row)}: {why}")
        if len(store.damaged) > _LISTED:
            note(f"{name}: left out: {len(store.damaged):,} files in all; {store.folder / ENTRY_FILE} lists them")
    return store


def _images(section: FileImagesSection, store: Store, files: Files, rows: NDArray[np.int64]) -> LazyImages:
    if section.storage == "cache":
        assert store.images is not None
        return StoredImages(store.images, torch.from_numpy(rows))
    workers = min(_MOST_WORKERS, usable_cpus()) if section.workers is None else section.workers
    return FileImages(files, torch.from_numpy(rows), store.view, workers)
