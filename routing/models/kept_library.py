"""What a model takes from a library's files beside its weights, kept with a run, which can then be loaded without them.

Those are the configuration of an architecture (``config.json`` of transformers) and the mean and deviation that its
weights were trained with (``preprocessor_config.json``, or the weights that a chain of runs began with).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from routing.config.section import ModelSection
from routing.data import DataInfo
from routing.errors import InputError
from routing.files.atomic import write_json
from routing.files.results_folder import LIBRARY_FILE
from routing.models import build_model
from routing.models.base import VisionModel

_STATISTICS = ("scale", "shift")
"""Buffers of ``pretrained.keep_own_statistics``, which are in no file of weights."""


def keep_library(folder: Path, model: VisionModel) -> None:
    """Write what the model was built with into a run's folder, if there is anything."""
    statistics = {
        name: [None if value is None else value.flatten().tolist() for value in found]
        for name, module in model.named_modules()
        if (found := _statistics(module)) is not None
    }
    if statistics or model.library_config() is not None:
        write_json(folder / LIBRARY_FILE, {"config": model.library_config(), "statistics": statistics})


def build_kept(section: ModelSection, info: DataInfo, folder: Path) -> VisionModel:
    """Return the untrained model of a run in ``folder``, built with what was kept there.

    Raises:
        InputError: a damaged file, or, in the folder of an older run without it, files of a library that are gone.
    """
    path = folder / LIBRARY_FILE
    if not path.is_file():
        return build_model(section, info)
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        config, statistics = kept["config"], kept["statistics"].items()
        model = build_model(section if config is None else section.with_library_config(config), info)
        for name, values in statistics:
            module = model.get_submodule(name)
            for buffer, numbers in zip(_STATISTICS, values, strict=True):
                value = None if numbers is None else torch.tensor(numbers).view(-1, 1, 1)
                module.register_buffer(buffer, value, persistent=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not as a run writes it: {error}") from None
    return model


def _statistics(module: nn.Module) -> list[Tensor | None] | None:
    """Return the two buffers of a module, each of which may be None; None where it has none of its own."""
    is_kept = set(_STATISTICS) <= module._non_persistent_buffers_set
    return [module._buffers[name] for name in _STATISTICS] if is_kept else None
