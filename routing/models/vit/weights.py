"""Weights that a vision transformer starts from: a run of this project, a file, or torchvision's or timm's by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from routing.errors import InputError, choices
from routing.files.record import MODEL_FILE
from routing.files.tensors import DATA, load_weights, read_metadata
from routing.models.base import VisionModel
from routing.models.pretrained import FILE_TYPES, one_line, pretrained_state, read_state


def load_run(model: VisionModel, source: str) -> None:
    """Load the weights of a trained run (its folder, or its model.safetensors)."""
    path = Path(source)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"model.weights {source}: no such file, and no folder with {MODEL_FILE}")
    load_weights(model, path)


def is_run(source: str) -> bool:
    """Return whether ``model.weights`` names a run of this project: its folder, or its file, which says so."""
    path = Path(source)
    if path.is_dir() or path.suffix != ".safetensors":
        return path.is_dir()
    return path.is_file() and DATA in read_metadata(path)


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
    with _fitting(architecture, source):
        state = interpolate_embeddings(int(core.image_size), int(core.patch_size), dict(state))
        _load(model, core, state, "heads.")


def load_timm(model: VisionModel, architecture: str, source: str) -> None:
    """Load pretrained weights into a timm transformer: ``DEFAULT`` is timm's own for the name, else a run or a file.

    Positions and patches are resampled to those of the model, by timm; a head for another number of classes is left as
    it is.

    Raises:
        InputError: no such weights, no network, or weights of another architecture.
    """
    if is_run(source):
        load_run(model, source)
        return
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

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
    elif Path(source).suffix in FILE_TYPES:
        state = read_state(Path(source), "model.weights")
    else:
        raise InputError(f"model.weights '{source}' (valid: DEFAULT, a run, or a {choices(FILE_TYPES)} file)")
    with _fitting(architecture, source):
        _load(model, core, dict(checkpoint_filter_fn(state, core)), "head.")


@contextmanager
def _fitting(architecture: str, source: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"model.weights {source}: do not fit {architecture}: {one_line(error)}") from None


def _load(model: VisionModel, core: nn.Module, state: dict[str, Tensor], head: str) -> None:
    """Load weights into ``core``; what begins with ``head`` only where all of it fits."""
    wanted = core.state_dict()
    ends = {key for key in state if key.startswith(head)}
    if any(key not in wanted or state[key].shape != wanted[key].shape for key in ends):
        state = {key: value for key, value in state.items() if key not in ends}
    missing, unexpected = core.load_state_dict(state, strict=False)
    if any(key.startswith(head) for key in missing):
        model.untrained_parts = ("head",)
    odd = [*unexpected, *(key for key in missing if not key.startswith(head))]
    if odd:
        raise ValueError(f"'{odd[0]}' is not in both")
