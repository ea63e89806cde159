"""Data sets of image files: their splits as rows of one store, or as files that are decoded in every epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from routing.data import DataInfo, ImageData, Split
from routing.data.files import Files
from routing.data.images import FileImages, LazyImages, StoredImages
from routing.data.sections import FileImagesSection
from routing.data.store import Store, usable_cpus
from routing.errors import InputError

_MOST_WORKERS = 8  # of one trial that decodes in every epoch


def load_files(
    section: FileImagesSection,
    info: DataInfo,
    store: Store,
    files: Files,
    rows: Mapping[str, NDArray[np.int64]],
    targets: Mapping[str, NDArray[np.generic]],
) -> ImageData:
    """Return a data set of decoded files, without the damaged ones.

    Args:
        store: what is known of ``files``.
        rows: of ``files`` for every split, int64 (M,).
        targets: (M,) for every split.

    Raises:
        InputError: nothing is left of a split.
    """
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


def _images(section: FileImagesSection, store: Store, files: Files, rows: NDArray[np.int64]) -> LazyImages:
    if section.storage == "cache":
        assert store.images is not None
        return StoredImages(store.images, torch.from_numpy(rows))
    workers = min(_MOST_WORKERS, usable_cpus()) if section.workers is None else section.workers
    return FileImages(files, torch.from_numpy(rows), store.view, workers)
