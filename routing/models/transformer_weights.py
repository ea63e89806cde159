"""Weights that a vision transformer starts from: a run of this project, a file, or torchvision's by name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from routing.errors import InputError, choices, nearest
from routing.models.base import VisionModel
from routing.record import MODEL_FILE
from routing.training.checkpoint import load_tensors, load_weights


def load_run(model: VisionModel, source: str) -> None:
    """Load the weights of a trained run (its folder, or its model.safetensors)."""
    path = Path(source)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"model.weights {source}: no such file, and no folder with {MODEL_FILE}")
    load_weights(model, path)


def load_torchvision(model: VisionModel, architecture: str, source: str) -> None:
    """Load pretrained weights into a torchvision transformer.

    Positions are interpolated to the image size of the model; a head for another number of classes is left as it is.

    Raises:
        InputError: no such weights, no network, or weights of another architecture.
    """
    from torchvision.models.vision_transformer import interpolate_embeddings

    core = model.core
    assert isinstance(core, nn.Module)
    state = _read(source) if Path(source).suffix else _named(architecture, source)
    try:
        state = interpolate_embeddings(int(core.image_size), int(core.patch_size), dict(state))
        head = {key for key in state if key.startswith("heads.")}
        if any(key not in core.state_dict() or state[key].shape != core.state_dict()[key].shape for key in head):
            state = {key: value for key, value in state.items() if key not in head}
        missing, unexpected = core.load_state_dict(state, strict=False)
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"model.weights {source}: do not fit {architecture}: {_line(error)}") from None
    if unexpected or any(not key.startswith("heads.") for key in missing):
        odd = [*unexpected, *missing][0]
        raise InputError(f"model.weights {source}: not weights of {architecture}: '{odd}' does not fit")


def _read(source: str) -> dict[str, Tensor]:
    path = Path(source)
    if not path.is_file():
        raise InputError(f"model.weights {source}: no such file")
    if path.suffix == ".safetensors":
        return load_tensors(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling garbage raises anything
        raise InputError(f"model.weights {source}: not a readable file of weights: {_line(error)}") from None
    if not isinstance(state, dict):
        raise InputError(f"model.weights {source}: holds {type(state).__name__}, not a dictionary of tensors")
    return state


def _named(architecture: str, name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    known = get_model_weights(architecture)
    if name not in known.__members__:
        valid = list(known.__members__)
        raise InputError(f"model.weights '{name}'{nearest(name, valid)} (valid: {choices(valid)}, or a file)")
    try:
        state: dict[str, Tensor] = known[name].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"model.weights {name}: could not be downloaded: {_line(error)}; give a file instead"
        ) from None
    return state


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
