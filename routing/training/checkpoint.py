"""Saved weights and training states: safetensors only, so that reading one never runs code.

``model.safetensors`` holds the weights of a finished run. ``checkpoint.safetensors`` holds what an interrupted run
needs to continue after its last epoch: weights, optimiser state, random state, history. ``best.safetensors`` holds
the weights of the epoch with the best validation value, for the user; studies use the last weights only.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from routing.config import plugins
from routing.config.run import RunConfig
from routing.data import ImageData
from routing.errors import InputError
from routing.files.results_folder import CHECKPOINT_FILE
from routing.files.tensors import load_tensors, save_tensors
from routing.training.averaging import WeightAverage


@dataclass
class Progress:
    """Where a run stands: epochs finished, one history row for each, the weights after the best of them."""

    epoch: int
    history: list[dict[str, Any]]
    best: dict[str, Tensor] = field(default_factory=dict)

    def after(self, row: dict[str, Any], model: nn.Module, metric: str, higher_is_better: bool) -> Progress:
        """Return the progress after one more epoch; ``metric`` is the history column that decides which is best."""
        history = [*self.history, row]
        sign = 1.0 if higher_is_better else -1.0
        *before, last = (sign * float(past[metric]) for past in history)
        is_best = all(last > value for value in before if not math.isnan(value))  # the first of equals
        best = {key: value.detach().clone() for key, value in model.state_dict().items()} if is_best else self.best
        return Progress(int(row["epoch"]), history, best)


def identity(config: RunConfig, data: ImageData) -> str:
    """Return a digest of the settings, plugins and data of a training; a checkpoint of another one is not resumed."""
    content = {**config.model_dump(mode="json", exclude={"evaluation", "device"}), "data": data.identity()}
    content["training"].pop("pictures_every", None)
    for key in config.dataset.how:
        content["dataset"].pop(key, None)
    if config.plugins:
        content["code"] = plugins.digest(config.plugins)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save_checkpoint(
    folder: Path,
    training: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    average: WeightAverage | None = None,
) -> None:
    """Save everything needed to continue after this epoch; ``training`` is its ``identity``."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{key}": value for key, value in average.tensors.items()}
    tensors |= {f"best.{key}": value for key, value in progress.best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        known = {key: value for key, value in state.items() if value is not None}
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in known.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    device = next(model.parameters()).device
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    metadata = {"epoch": str(progress.epoch), "history": json.dumps(progress.history), "training": training}
    metadata["averaged_steps"] = str(average.steps if average is not None else 0)
    save_tensors(folder / CHECKPOINT_FILE, tensors, metadata)


def restore_checkpoint(
    folder: Path,
    training: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None = None,
) -> Progress | None:
    """Bring model, optimiser, average and random state back to the last finished epoch of this ``identity``.

    Returns:
        The progress of the run, or None without a usable checkpoint (no file, a truncated one, or one of another
        training, as on other data): the run then starts at the first epoch.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        tensors, metadata = load_tensors(path)
        if metadata.get("training") != training:
            return None
        progress = Progress(int(metadata["epoch"]), json.loads(metadata["history"]), _below("best.", tensors))
        weights = _below("model.", tensors)
        if not _fits(model, weights):  # checked first: load_state_dict raises half-way through
            return None
        averaged = _below("average.", tensors)
        if average is not None:
            average.load(averaged, int(metadata["averaged_steps"]))
        model.load_state_dict(weights)
    except (InputError, KeyError, ValueError, RuntimeError):
        return None
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    _lay_out(optimizer)
    torch.set_rng_state(tensors["random.cpu"])
    device = next(model.parameters()).device
    if "random.cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
    return progress


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser state of every parameter the parameter's memory layout, which fused optimisers rely on."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _fits(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    return shapes == {key: value.shape for key, value in weights.items()}


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
