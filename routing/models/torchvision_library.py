"""torchvision: its networks and their weights by name, from a file, or in part for a backbone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from routing.errors import InputError, choices, nearest
from routing.models.pretrained import first_weights, fitting, keep_own_statistics, one_line
from routing.models.weight_files import FILE_TYPES, is_weights_file, read_state

if TYPE_CHECKING:
    from routing.data import DataInfo

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def torchvision_state(architecture: str, source: str, key: str) -> dict[str, Tensor]:
    """Return the weights of a torchvision model.

    Args:
        architecture: torchvision's name of the model.
        source: torchvision's name of weights (``DEFAULT``, ``IMAGENET1K_V1``), downloaded once, or a path to a
            file of weights (``weight_files.FILE_TYPES``).
        key: the configuration's key that names ``source``, for errors.

    Raises:
        InputError: unknown weights, no network, or a file that holds no weights.
    """
    is_file = is_weights_file(source)
    state = read_state(Path(source), key) if is_file else _downloaded(architecture, source, key)
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


def load_backbone(
    backbone: nn.Module,
    architecture: str,
    source: str,
    rename: Callable[[str], str | None] = str,
    needed: str = "",
) -> None:
    """Load torchvision's weights by name or from a file into the stages of one of its networks.

    Args:
        rename: torchvision's name of a tensor -> the backbone's; None where it has none.
        needed: prefix of the tensors that must not be missing.

    Raises:
        InputError: weights that cannot be had, or of another model.
    """
    key = "model.backbone.weights"
    state = torchvision_state(architecture, source, key)
    with fitting("torchvision_net", architecture, f"{key} {source}", state, ("fc.", "classifier.", "head.")):
        renamed = {new: tensor for name, tensor in state.items() if (new := rename(name)) is not None}
        missing = backbone.load_state_dict(renamed, strict=False).missing_keys
        missing = [name for name in missing if name.startswith(needed)]
        if missing:
            raise ValueError(f"'{missing[0]}' is missing")
        whole = network_on_meta(architecture).state_dict()  # stages may be left out, but not deeper ones be cut down
        inside = {name.partition(".")[0] for name in whole}
        odd = [name for name in state if name not in whole and name.partition(".")[0] in inside]
        if odd:
            raise ValueError(f"'{odd[0]}' is not in it")


def network_on_meta(architecture: str) -> nn.Module:
    """Return torchvision's network of a name, its parameters without memory where it can be built so.

    RegNets cannot: they compute their widths with tensors and read the values, which tensors on ``meta`` do not have.
    """
    from torchvision.models import get_model

    try:
        with torch.device("meta"):
            network: nn.Module = get_model(architecture, weights=None)
    except NotImplementedError:  # torch's error for a value read on meta
        network = get_model(architecture, weights=None)
    return network


def keep_statistics(model: nn.Module, name: str, weights: str | None, info: DataInfo) -> None:
    """Let ``renormalised`` give images to a model as the torchvision weights that it starts from were trained.

    Args:
        name: of torchvision's model.
        weights: None where it is trained from scratch; images then stay as they are. Those of a run are given images
            as that run was.
        info: of the data, whose statistics its images are normalised by.
    """
    weights = first_weights(weights)
    keep_own_statistics(model, info, None if weights is None else trained_statistics(name, weights))


def trained_statistics(name: str, weights: str) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (3, 1, 1) of a torchvision model's weights; those of its default ones for a file."""
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    found = known[weights] if weights in known.__members__ else known["DEFAULT"]
    transforms = found.transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transforms.mean, transforms.std))
    return mean, std
