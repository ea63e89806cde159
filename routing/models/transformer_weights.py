"""Weights that a vision transformer starts from: a run of this project, a file, or torchvision's by name."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from routing.errors import InputError
from routing.models.base import VisionModel
from routing.models.pretrained import one_line, pretrained_state
from routing.record import MODEL_FILE
from routing.training.checkpoint import load_weights


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
    state = pretrained_state(architecture, source, "model.weights")
    try:
        state = interpolate_embeddings(int(core.image_size), int(core.patch_size), dict(state))
        head = {key for key in state if key.startswith("heads.")}
        if any(key not in core.state_dict() or state[key].shape != core.state_dict()[key].shape for key in head):
            state = {key: value for key, value in state.items() if key not in head}
            model.untrained_parts = ("head",)
        missing, unexpected = core.load_state_dict(state, strict=False)
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"model.weights {source}: do not fit {architecture}: {one_line(error)}") from None
    if unexpected or any(not key.startswith("heads.") for key in missing):
        odd = [*unexpected, *missing][0]
        raise InputError(f"model.weights {source}: not weights of {architecture}: '{odd}' does not fit")
