"""Data sets that torchvision knows, read once from their own files into cached uint8 arrays.

Only files whose checksum is right are unpickled. Nothing is downloaded unless ``dataset.download`` is true.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from routing.data import ImageData
from routing.data.cache import Arrays, cached_data
from routing.data.splitting import cut_by_seed
from routing.errors import InputError, RoutingError

if TYPE_CHECKING:
    from routing.data import DataInfo
    from routing.data.sections import TorchvisionSection

VERSION = 1
CHUNK = 1000  # images resized at once

Images = NDArray[np.uint8]  # (N, C, H, W)
Check = Callable[[type[Any], Path], str | None]


def load(section: TorchvisionSection, info: DataInfo, class_name: str, check: Check) -> ImageData:
    """Return train, val (cut from train by seed) and test.

    Args:
        class_name: of ``torchvision.datasets``.
        check: returns what is wrong with the files below a root, in one line, or None.

    Raises:
        InputError: files are missing or damaged.
        RoutingError: the download failed.
    """
    key = {
        "version": VERSION,
        "root": str(section.root.resolve()),
        **section.model_dump(mode="json", exclude={"root", "download", "patch_grid_size", "patch_margin"}),
    }
    return cached_data(info, section.name, key, lambda: _read_all(section, class_name, check))


def _read_all(section: TorchvisionSection, class_name: str, check: Check) -> Arrays:
    from torchvision import datasets

    source = getattr(datasets, class_name)
    wrong = check(source, section.root)
    if wrong is not None and not section.download:
        raise InputError(f"{wrong}; put {class_name} there, or let it be downloaded with --dataset.download true")
    if wrong is not None:
        _download(source, section.root)
    train_images, train_targets = _arrays(source(section.root, train=True), section.input_size)
    test_images, test_targets = _arrays(source(section.root, train=False), section.input_size)
    cut = cut_by_seed(len(train_targets), section.seed, val_fraction=section.val_fraction, num_train=section.num_train)
    arrays: Arrays = {
        name: {"images": train_images[rows], "targets": train_targets[rows]} for name, rows in cut.items()
    }
    return {**arrays, "test": {"images": test_images, "targets": test_targets}}


def _download(source: type[Any], root: Path) -> None:
    try:
        source(root, download=True)
    except (RuntimeError, OSError) as error:  # URLError is an OSError
        line = " ".join(str(error).split())[:200]
        raise RoutingError(f"{source.__name__} could not be downloaded to {root}: {line}") from None


def _arrays(source: Any, size: int) -> tuple[Images, NDArray[np.int64]]:
    """Return all images (N, C, size, size) and their classes."""
    pixels = torch.as_tensor(np.asarray(source.data))
    images = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return resize(images, size).numpy(), np.asarray(source.targets, np.int64)


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resize uint8 (N, C, H, W) to ``size`` pixels, smoothed where that makes them smaller."""
    if images.shape[-2:] == (size, size):
        return images.contiguous()
    chunks = [
        F.interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
        for chunk in images.split(CHUNK)
    ]
    return torch.cat([chunk.round().clamp(0, 255).to(torch.uint8) for chunk in chunks])
