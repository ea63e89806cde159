"""Tiny drawn photographs: a folder of two classes that colour tells apart, and what configurations say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.models import build_model
from routing.models.base import VisionModel


def photograph_info(side: int = 32, channels: int = 3, classes: int = 10) -> DataInfo:
    """Return what a model must know of colour images of this size."""
    names = tuple(str(index) for index in range(classes))
    values = (0.5,) * channels
    return DataInfo("classification", channels, side, classes, values, values, names, 4, 0)


def built(info: DataInfo | None = None, **keys: Any) -> VisionModel:
    """Return the model of these dotted keys below ``model``, in eval mode."""
    config = RunConfig.from_dict({f"model.{key}": value for key, value in keys.items()})
    return build_model(config.model, info or photograph_info()).eval()


def draw_photographs(root: Path, per_class: int = 24, side: int = 16) -> None:
    """Write ``root/train/<class>/*.png``: noise that is red in one class and blue in the other."""
    rng = np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (root / "train" / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.integers(0, 128, (side, side, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / "train" / name / f"{index}.png")


def exported(model: VisionModel, batch: Tensor) -> Tensor:
    """Return what the exported graph of a model, traced on another number of images, predicts for a batch."""
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(model.traceable(), (batch[:2],), dynamic_shapes=dynamic, strict=False)
    predictions: Tensor = program.module()(batch)
    return predictions
