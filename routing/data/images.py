"""Images that are not one tensor in memory: rows of a memory-mapped store, or files that are decoded when asked for.

Both answer as a uint8 tensor (M, 3, H, W) would: ``len``, ``shape``, an index, a slice, ``index_select``, ``split``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from routing.data.decode import DamagedImage
from routing.data.files import Files
from routing.data.view import View
from routing.errors import InputError


class LazyImages(ABC):
    """Images of a split that are read when asked for."""

    dtype = torch.uint8
    device = torch.device("cpu")

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """(M, channels, height, width)."""

    @abstractmethod
    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the images of these numbers, uint8 (B, C, H, W); ``dim`` is 0."""

    def stream(self, chunks: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of every chunk of numbers, in order."""
        return (self.index_select(0, chunk) for chunk in chunks)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield all images, ``size`` at a time."""
        return self.stream(torch.arange(len(self)).split(size))

    @property
    def nbytes(self) -> int:
        """Bytes of all images as one tensor."""
        return self.shape.numel()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, tuple):
            first, *rest = index
            found = self[first]
            inner = (slice(None), *rest) if found.ndim == 4 else tuple(rest)
            return found[inner]
        numbers = torch.arange(len(self))[index]
        found = self.index_select(0, numbers.reshape(-1))
        return found[0] if numbers.ndim == 0 else found


class StoredImages(LazyImages):
    """Rows (M,) of a store; the pages of its file are shared by all processes of a machine."""

    def __init__(self, path: Path, rows: Tensor) -> None:
        # copy-on-write, so that torch gets a writable buffer and the pages stay shared between processes
        self._store = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        self._rows = rows

    @property
    def shape(self) -> torch.Size:
        """(M, channels, height, width)."""
        return torch.Size((len(self._rows), *self._store.shape[1:]))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the images of these numbers, uint8 (B, C, H, W)."""
        assert dim == 0
        return self._store.index_select(0, self._rows[index])


class FileImages(LazyImages):
    """Files that are decoded every time they are asked for, in ``workers`` processes where there are batches of them.

    The same view gives the same pixels as a store; nothing is written to disk.
    """

    def __init__(self, files: Files, rows: Tensor, view: View, workers: int) -> None:
        self._dataset, self._rows, self._workers = _Decoded(files, view), rows, workers
        self._order: list[list[int]] = []
        self._loader: DataLoader[Tensor | str] | None = None

    @property
    def shape(self) -> torch.Size:
        """(M, channels, height, width)."""
        view = self._dataset.view
        return torch.Size((len(self._rows), 3, view.height, view.width))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the images of these numbers, uint8 (B, C, H, W)."""
        assert dim == 0
        return _checked(self._dataset.__getitems__(self._rows[index].tolist()))

    def stream(self, chunks: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of every chunk, in order; the workers decode ahead and stay for the next epoch."""
        if not self._workers or len(chunks) < 2:
            yield from super().stream(chunks)
            return
        self._order[:] = [self._rows[chunk].tolist() for chunk in chunks]
        if self._loader is None:
            self._loader = DataLoader(
                self._dataset,
                batch_sampler=self._order,
                num_workers=self._workers,
                collate_fn=_as_it_is,
                persistent_workers=True,
            )
        yield from map(_checked, self._loader)


class _Decoded(Dataset["Tensor | str"]):
    """Decodes files by row; an error is returned, not raised, because an exception would lose its message."""

    def __init__(self, files: Files, view: View) -> None:
        self.files, self.view = files, view

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, rows: list[int]) -> Tensor | str:
        images = torch.empty((len(rows), 3, self.view.height, self.view.width), dtype=torch.uint8)
        for image, row in zip(images, rows, strict=True):
            path = self.files.absolute(row)
            try:
                image.copy_(torch.from_numpy(self.view.read(path)))
            except DamagedImage as error:
                return f"{path}: not a readable image: {error}"
            except InputError as error:
                return str(error)
        return images


def _as_it_is(batch: Tensor | str) -> Tensor | str:
    return batch


def _checked(batch: Tensor | str) -> Tensor:
    if isinstance(batch, str):
        raise InputError(batch)
    return batch
