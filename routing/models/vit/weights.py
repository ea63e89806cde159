"""Weights that a vision transformer starts from: a run of this project, a file, or torchvision's or timm's by name."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

from routing.errors import InputError, choices
from routing.models.base import VisionModel
from routing.models.pretrained import (
    fitting,
    is_run,
    load_run,
    load_state,
    one_line,
    pretrained_state,
)
from routing.models.weight_files import FILE_TYPES, is_weights_file, read_state


def load_torchvision(model: VisionModel, architecture: str, source: str) -> None:
    """Load pretrained weights, or those of a run, into a torchvision transformer.

    Positions are interpolated to the image size of the model; a head for another number of classes is left as it is.

    Raises:
        InputError: no such weights, no network, or weights of another architecture.
    """
    from torchvision.models.vision_transformer import interpolate_embeddings

    if is_run(source):
        load_run(model, source)
        return
    core = model.core
    assert isinstance(core, nn.Module)
    state = pretrained_state(architecture, source, "model.weights")
    with fitting(architecture, source):
        state = interpolate_embeddings(int(core.image_size), int(core.patch_size), dict(state))
        load_state(model, core, state, "heads.")


def load_timm(model: VisionModel, architecture: str, source: str) -> None:
    """Load pretrained weights into a timm transformer: ``DEFAULT`` is timm's own for the name, else a run or a file.

    Positions and patches are resampled to those of the model, by timm; a head for another number of classes is left
    as it is.

    Raises:
        InputError: no such weights, no network, or weights of another architecture.
    """
    if is_run(source):
        load_run(model, source)
        return
    import timm

    core = model.core
    assert isinstance(core, nn.Module)
    if source == "DEFAULT":
        try:
            state = timm.create_model(architecture, pretrained=True).state_dict()
        except Exception as error:  # a hub that does not answer raises anything
            raise InputError(
                f"model.weights DEFAULT: {architecture} has none that can be downloaded here ({one_line(error)}); give "
                "the path of a weights file"
            ) from None
    elif is_weights_file(source):
        state = read_state(Path(source), "model.weights")
    else:
        raise InputError(f"model.weights '{source}' (valid: DEFAULT, a run, or a {choices(FILE_TYPES)} file)")
    with fitting(architecture, source):
        resampled = sys.modules[type(core).__module__].checkpoint_filter_fn(state, core)
        load_state(model, core, dict(resampled), ("head.", "head_dist."))
