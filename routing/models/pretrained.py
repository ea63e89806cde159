"""Weights that a model starts from, and the statistics they were trained with, whichever library they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.files.results_folder import CONFIG_FILE, MODEL_FILE
from routing.files.tensors import DATA, load_weights, read_metadata
from routing.files.yaml_io import load_file
from routing.models.nearest_weights import looks_like

if TYPE_CHECKING:
    from routing.data import DataInfo
    from routing.models.base import VisionModel

Channels: TypeAlias = Sequence[float] | Tensor

LIBRARY_CONFIG = "config.json"
"""Beside weights of transformers; a folder with it is theirs and no run."""


def one_line(error: Exception) -> str:
    """Return the text of an error as one short line; of torch's list of what does not fit, the first that does not."""
    text = str(error)
    if text.startswith("Error(s) in loading state_dict"):
        text = text.partition("\n")[2].strip().partition("\n")[0]
    return " ".join(text.split())[:200] or type(error).__name__


def load_run(model: VisionModel, source: str) -> None:
    """Load the weights of a trained run (its folder, or its model.safetensors)."""
    path = Path(source)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"model.weights {source}: no such file, and no folder with {MODEL_FILE}")
    load_weights(model, path, model.added_parts)


def is_run(source: str) -> bool:
    """Return whether ``model.weights`` names a run of this project: its folder, or its file, which says so."""
    path = Path(source)
    if path.is_dir() or path.suffix != ".safetensors":
        return path.is_dir()
    return path.is_file() and DATA in read_metadata(path)


def first_weights(weights: str | None) -> str | None:
    """Return the weights that a chain of runs started from, None where the first was trained from scratch."""
    seen: set[str] = set()
    while weights is not None and is_run(weights) and not (Path(weights) / LIBRARY_CONFIG).is_file():
        if weights in seen:
            return None
        seen.add(weights)
        weights = model_beside(Path(weights)).get("weights")
    return weights


def model_beside(weights: Path) -> dict[str, Any]:
    """Return ``model`` of the run that a folder or a file of weights is of, as its file has it; {} without one."""
    config = (weights if weights.is_dir() else weights.parent) / CONFIG_FILE
    run = load_file(config)[0] if config.is_file() else None
    model = run.get("model") if isinstance(run, dict) else None
    return model if isinstance(model, dict) else {}


def load_pretrained(
    model: VisionModel,
    core: nn.Module,
    section: Any,
    read: Callable[[str, str, str], dict[str, Tensor]],
    head: str | tuple[str, ...],
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Load ``model.weights`` into ``core``, if there are any: those of a run, or what ``read`` finds.

    Args:
        section: of the model, with ``architecture`` and ``weights``.
        read: (architecture, weights, key) -> tensors.
        head: prefixes of the classifier; one for another number of classes is left as it is.
        adapt: makes tensors of another size of image fit.

    Raises:
        InputError: no such weights, no network, or weights of another architecture.
    """
    source, architecture = section.weights, section.architecture
    if source is None:
        return
    if is_run(source):
        load_run(model, source)
        return
    state = read(architecture, source, "model.weights")
    with fitting(section.name, architecture, f"model.weights {source}", state, head):
        load_state(model, core, adapt(dict(state)), head)


@contextmanager
def fitting(
    model: str, architecture: str, where: str, state: Mapping[str, Tensor], head: str | tuple[str, ...]
) -> Iterator[None]:
    """Turn any error of torch on weights that do not fit an architecture into one line that names the nearest.

    Args:
        model: ``model.name``.
        where: the configuration's key and the weights it names.
        head: prefixes of the classifier.
    """
    try:
        yield
    except (KeyError, ValueError, RuntimeError, AttributeError) as error:
        near = looks_like(state, model, architecture, head)
        raise InputError(f"{where}: do not fit {architecture}: {one_line(error)}{near}") from None


def load_state(model: VisionModel, core: nn.Module, state: dict[str, Tensor], head: str | tuple[str, ...]) -> None:
    """Load weights into ``core``; what begins with ``head`` (or one of these) only where all fits."""
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


def check_channels(info: DataInfo) -> None:
    """Raise ``InputError`` for images that cannot be given to the three channels of a library's model."""
    if info.channels not in (1, 3):
        raise InputError(f"these data have {info.channels} channels; the model takes 1 or 3")


def keep_own_statistics(model: nn.Module, info: DataInfo, own: tuple[Channels, Channels] | None) -> None:
    """Let ``renormalised`` give images to a model by its own mean and deviation, None: as they are."""
    scale = shift = None
    if own is not None:
        mean, std, given_mean, given_std = (
            torch.as_tensor(values).view(-1, 1, 1) for values in (*own, info.mean, info.std)
        )
        scale, shift = given_std / std, (given_mean - mean) / std
    model.register_buffer("scale", scale, persistent=False)
    model.register_buffer("shift", shift, persistent=False)


def renormalised(model: nn.Module, images: Tensor) -> Tensor:
    """Return images (B, 1 or 3, H, W) by the statistics that were kept, (B, 3, H, W) where there are some."""
    scale, shift = model.scale, model.shift
    if not isinstance(scale, Tensor) or not isinstance(shift, Tensor):
        return images
    return images * scale + shift
