"""Pretrained weights of torchvision models: by torchvision's name, or from a file."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from routing.errors import InputError, choices, nearest
from routing.files.tensors import load_tensors

FILE_TYPES = (".safetensors", ".pth", ".pt")

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def pretrained_state(architecture: str, source: str, key: str) -> dict[str, Tensor]:
    """Return the weights of a torchvision model.

    Args:
        architecture: torchvision's name of the model.
        source: torchvision's name of weights (``DEFAULT``, ``IMAGENET1K_V1``), downloaded once, or a path to a
            .safetensors, .pth or .pt file.
        key: the configuration's key that names ``source``, for errors.

    Raises:
        InputError: unknown weights, no network, or a file that holds no weights.
    """
    state = (
        read_state(Path(source), key) if Path(source).suffix in FILE_TYPES else _downloaded(architecture, source, key)
    )
    if architecture.startswith("densenet"):  # published before torchvision renamed its layers
        state = {_OLD_DENSENET.sub(r"\1\2.", name): tensor for name, tensor in state.items()}
    return state


def _downloaded(architecture: str, source: str, key: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    known = get_model_weights(architecture)
    if source not in known.__members__:
        raise InputError(
            f"{key} '{source}': {architecture} has no such weights{nearest(source, known.__members__)} "
            f"(valid: {choices(known.__members__)}, or a {choices(FILE_TYPES)} file)"
        )
    try:
        state: dict[str, Tensor] = known[source].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f"{key} '{source}' cannot be downloaded ({one_line(error)}); save {known[source].url} into {folder}, or "
            "give the path of a weights file"
        ) from None
    return state


def read_state(path: Path, key: str) -> dict[str, Tensor]:
    """Return the tensors in a file of weights; ``key`` is the configuration's that names it, for errors."""
    if not path.is_file():
        raise InputError(f"{key} {path}: no such file")
    if path.suffix == ".safetensors":
        return load_tensors(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling garbage raises anything
        raise InputError(f"{key} {path}: not a readable file of weights: {one_line(error)}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{key} {path}: does not hold a dictionary of tensors")
    return state


def one_line(error: Exception) -> str:
    """Return the text of an error as one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
