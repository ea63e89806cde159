"""Which architecture weights are of that do not fit the one asked for: by the names and shapes of their tensors."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

_LIBRARIES = {
    "encoder.layers.encoder_layer_": "torchvision_vit",
    "embeddings.patch_embeddings.": "transformers_vit",
    "embeddings.patch_embedding.": "transformers_vit",
    "attention.attention.query.": "transformers_vit",
    "patch_embed.proj.": "timm_vit",
}
"""Names that only the transformers of one library have, and the model here that takes them."""

_WIDTHS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1152: "so400m", 1280: "huge", 1408: "giant"}
"""Words for the width of a transformer in timm's names."""

_SIZED_BY_IMAGES = ("pos_embed", "relative_position")
_MOST = 12  # candidates that are built, without memory for their parameters
_ENOUGH = 0.3


def looks_like(state: Mapping[str, Tensor], model: str, architecture: str, head: str | tuple[str, ...]) -> str:
    """Return what to add to an error: the nearest architecture, another model that takes it; "" where nothing is near.

    Args:
        state: the weights.
        model: ``model.name`` that they were given to.
        architecture: its name in its library.
        head: prefixes of the classifier, which may differ.
    """
    library = next((name for sign, name in _LIBRARIES.items() if any(sign in key for key in state)), model)
    if library == "transformers_vit":
        return "; their names are those of transformers (model.name transformers_vit)" if library != model else ""
    scored = _scored(state, library, architecture, head)
    share, name = max(scored, key=lambda found: found[0], default=(0.0, ""))  # the first of equals
    if share < _ENOUGH:
        return ""
    how = "they are of" if share == 1 else f"{share:.0%} of names and shapes are as in"
    taker = _taker(library, name)
    return f"; {how} {name}" + ("" if taker == model else f" (model.name {taker})")


def _taker(library: str, name: str) -> str:
    """Return the model here that takes an architecture: timm's transformers that lose no tokens are ``timm_net``."""
    if library != "timm_vit":
        return library
    from timm.models import model_entrypoint

    from routing.models.vit.timm_hosts import REFUSED

    return "timm_net" if model_entrypoint(name).__module__.rpartition(".")[2] in REFUSED else library


def _scored(
    state: Mapping[str, Tensor], library: str, architecture: str, head: str | tuple[str, ...]
) -> Iterator[tuple[float, str]]:
    """Yield the share of tensors that are in both, of those in either, for candidates, up to the first that has all."""
    ours = _signature(state, head)
    for name in _candidates(state, library, architecture):
        if name == architecture:
            continue
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = _signature(_built(library, name).state_dict(), head)
        except Exception:  # some cannot be built without memory, nor for the images of their name
            continue
        share = len(ours & theirs) / max(1, len(ours | theirs))
        yield share, name
        if share == 1:
            return


def _signature(state: Mapping[str, Tensor], head: str | tuple[str, ...]) -> set[tuple[str, tuple[int, ...]]]:
    return {
        (key, () if any(word in key for word in _SIZED_BY_IMAGES) else tuple(tensor.shape))
        for key, tensor in state.items()
        if not key.startswith(head)
    }


def _candidates(state: Mapping[str, Tensor], library: str, architecture: str) -> Sequence[str]:
    """Return names worth building, the nearest first."""
    if library.startswith("torchvision"):
        return _of_torchvision(state)[:_MOST]
    try:
        import timm
    except ImportError:
        return []

    names = timm.list_models()
    patches = state.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 4:
        word = _WIDTHS.get(patches.shape[0], "")
        fitting = [name for name in names if word in name and f"patch{patches.shape[2]}_" in name]
        family = _timm_family(state)
        fitting.sort(key=lambda name: (not name.startswith(family), len(name)))
        return fitting[:_MOST]
    if library == "timm_vit":
        return []
    family = re.split(r"[^a-z]", architecture)[0]
    return sorted((name for name in names if name.startswith(family)), key=lambda name: (len(name), name))[:_MOST]


def _timm_family(state: Mapping[str, Tensor]) -> str:
    """Return how timm's names begin for weights with these tensors."""
    if any("relative_position_bias_table" in key for key in state):
        return "beit"
    if any(".mlp.fc1_g." in key or ".mlp.w12." in key or ".attn.q_proj." in key for key in state):
        return "eva"
    return "deit" if "dist_token" in state else "vit"


def _of_torchvision(state: Mapping[str, Tensor]) -> list[str]:
    """Return torchvision's names by how near their number of parameters is, which it publishes."""
    import torchvision
    from torchvision.models import get_model_weights, list_models

    parameters = sum(
        tensor.numel() for key, tensor in state.items() if not key.endswith(("running_mean", "running_var", "tracked"))
    )
    known = Counter(
        {
            name: -abs(int(weights["DEFAULT"].meta["num_params"]) - parameters)
            for name in list_models(module=torchvision.models)
            if "DEFAULT" in (weights := get_model_weights(name)).__members__
        }
    )
    return [name for name, _ in known.most_common()]


def _built(library: str, name: str) -> nn.Module:
    if library.startswith("torchvision"):
        from torchvision.models import get_model

        network: nn.Module = get_model(name, weights=None)
        return network
    import timm

    network = timm.create_model(name)
    return network
