"""Models and images of the shapes that benchmarks are run on; weights and pixels are random, the work is the same."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.models import build_model
from routing.models.patch.model import PatchModel

DIGITS: dict[str, Any] = {"dataset.name": "digits"}
CIFAR: dict[str, Any] = {  # of search_spaces/sweeps/routing_cifar10.yaml
    "dataset.name": "cifar10",
    "dataset.root": "data",
    "dataset.input_size": 32,
    "dataset.patch_grid_size": 4,
    "dataset.patch_margin": 4,
    "model.encoder.pool": 2,
    "model.encoder.channels": 16,
    "model.experts.big": [384, 384],
    "model.experts.small": [32],
    "model.experts.width": 128,
    "training.augment.crop": 2,
    "training.augment.flip": True,
}
SHAPES = {"digits": DIGITS, "CIFAR": CIFAR}


def config_of(keys: dict[str, Any], model: str, **changes: Any) -> RunConfig:
    """Return the run of a shape with this model; ``changes`` are dotted keys more."""
    return RunConfig.from_dict({**keys, "model.name": model, **changes})


def patch_model(config: RunConfig, info: DataInfo | None = None) -> PatchModel:
    """Return the model of a run, untrained, in eval mode."""
    return cast(PatchModel, build_model(config.model, info or config.dataset.info()).eval())


def random_images(info: DataInfo, batch: int) -> Tensor:
    """Return images (B, C, H, W) as they are after normalisation."""
    return torch.randn(batch, info.channels, info.input_size, info.input_size)
