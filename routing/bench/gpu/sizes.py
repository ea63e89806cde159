"""How much of everything a check measures, and the families that it is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from routing.config.run import RunConfig
from routing.data import DataInfo, Split
from routing.models import build_model
from routing.models.base import VisionModel

PHOTOGRAPHS = DataInfo("classification", 3, 32, 10, (0.5,) * 3, (0.25,) * 3, patch_grid_size=4, patch_margin=4)
QUALITY = DataInfo("quality", 3, 64, 1, (0.5,) * 3, (0.25,) * 3)
_VIT = {"model.width": 192, "model.heads": 3, "model.depth": 6, "model.mlp": 768, "model.patch_size": 4}
_EXPERTS = {
    "model.encoder.pool": 2,
    "model.encoder.channels": 16,
    "model.experts.big": [384, 384],
    "model.experts.small": [32],
    "model.experts.width": 128,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "attention_routing": _EXPERTS,
    "attention_routing, top_k": {**_EXPERTS, "model.router.mode": "top_k"},
    "full_compute": {**_EXPERTS, "model.name": "full_compute"},
    "routed_conv": {"model.name": "routed_conv"},
    "routed_conv, top_k": {"model.name": "routed_conv", "model.router.mode": "top_k"},
    "conv_net": {"model.name": "conv_net"},
    "early_exit": {"model.name": "early_exit", "model.network.name": "conv_net"},
    "vit": {"model.name": "vit", **_VIT},
    "routed_vit": {"model.name": "routed_vit", **_VIT},
    "aacn": {"model.name": "aacn"},
    "hyperiqa": {"model.name": "hyperiqa", "model.crop_size": 48, "dataset.name": "quality"},
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured: ``batches`` of inference, ``rounds`` of timing, ``steps`` of ``batch`` images in training.

    processes: how many share the device. seconds: how long each number of them trains. compiles: torch.compile too.
    """

    batches: tuple[int, ...]
    rounds: int
    batch: int
    steps: int
    processes: tuple[int, ...]
    seconds: float
    families: tuple[str, ...] = tuple(FAMILIES)
    compiles: bool = False


FULL = Sizes((1, 32, 256, 2048), 9, 256, 40, (1, 2, 4, 8, 16), 6.0, compiles=True)
QUICK = Sizes((1, 256), 5, 256, 10, (1, 4, 8), 3.0)
TINY = Sizes((1,), 1, 4, 2, (1, 2), 0.3, ("attention_routing", "conv_net", "hyperiqa"))
SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}


def family(name: str, device: str, **changes: Any) -> tuple[RunConfig, VisionModel, DataInfo]:
    """Return the run, the untrained model on a device, and what it is told of its data."""
    config = RunConfig.from_dict({**FAMILIES[name], **changes})
    info = QUALITY if name == "hyperiqa" else PHOTOGRAPHS
    torch.manual_seed(0)
    return config, build_model(config.model, info).to(device), info


def random_split(info: DataInfo, images: int) -> Split:
    """Return random images and targets on the host."""
    made = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, info.input_size, info.input_size), generator=made, dtype=torch.uint8)
    if info.task == "quality":
        return Split(pixels, torch.rand(images, generator=made))
    return Split(pixels, torch.randint(0, info.num_outputs, (images,), generator=made))
