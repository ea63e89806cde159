"""Files of weights as people have them: what trainers wrap around tensors and before their names is taken off.

Reading a file never runs code of it: pickles are read by ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routing.errors import InputError, choices
from routing.files.tensors import load_tensors

FILE_TYPES = (".safetensors", ".safetensors.index.json", ".pth", ".pth.tar", ".pt", ".bin", ".ckpt")

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "module", "student")
"""Keys of a checkpoint under which weights stand, the averaged ones first, as timm takes them."""

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
"""What data parallelism, compilation, Lightning and self-supervised training put before every name."""

_HEADS = ("head.", "dino_head.", "ibot_head.", "projection_head.", "fc.", "classifier.")
"""Names beside ``backbone.``: a head keeps its name."""

_SELF_SUPERVISED = ("dino_head.", "ibot_head.", "projection_head.")
"""Heads of self-supervised training, which no classifier has."""


def is_weights_file(source: str) -> bool:
    """Return whether ``source`` is named as a file of weights is."""
    return source.endswith(FILE_TYPES)


def read_state(path: Path, key: str) -> dict[str, Tensor]:
    """Return the tensors in a file of weights, by the names that the network gave them.

    Args:
        path: one of ``FILE_TYPES``; an index names the files that weights were cut into.
        key: the configuration's key that names ``path``, for errors.

    Raises:
        InputError: no such file, no weights in it, or something that only code of the file could read.
    """
    if not path.is_file():
        raise InputError(f"{key} {path}: no such file")
    if path.name.endswith(".index.json"):
        return without_prefixes(_sharded(path, key))
    if path.suffix == ".safetensors":
        return without_prefixes(load_tensors(path)[0])
    try:
        with torch.serialization.safe_globals([Namespace]):  # the arguments of a training stand beside its weights
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling garbage raises anything
        raise InputError(f"{key} {path}: not a readable file of weights: {_reason(error)}") from None
    return without_prefixes(_unwrapped(content, f"{key} {path}"))


def without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without the ``PREFIXES`` that all names but a head's share, and without self-supervised heads."""
    for _ in PREFIXES:  # wrappers nest: module.backbone.
        for prefix in PREFIXES:
            inside = [name for name in state if name.startswith(prefix)]
            if inside and all(name.startswith((prefix, *_HEADS)) for name in state):
                state = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in state.items()
                    if not name.startswith(_SELF_SUPERVISED)
                }
    return state


def _sharded(index: Path, key: str) -> dict[str, Tensor]:
    """Return the tensors of all files that an index names."""
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{key} {index}: not an index of sharded weights: it has no weight_map") from None
    state: dict[str, Tensor] = {}
    for name in sorted(names):
        part = index.parent / Path(str(name)).name
        if not part.is_file():
            raise InputError(f"{key} {index}: its part {name} is missing; put all {len(names)} parts beside it")
        state.update(load_tensors(part)[0])
    return state


def _unwrapped(content: Any, where: str) -> dict[str, Tensor]:
    """Return the weights inside a checkpoint."""
    if _are_weights(content):
        state: dict[str, Tensor] = content
        return state
    if not isinstance(content, dict):
        raise InputError(f"{where}: does not hold a dictionary of tensors, but {type(content).__name__}")
    for name in WRAPPERS:
        if isinstance(content.get(name), dict) and content[name]:
            return _unwrapped(content[name], where)
    other = next((str(name) for name, value in content.items() if _are_weights(value)), None)
    raise InputError(
        f"{where}: does not hold a dictionary of tensors, but the keys {choices(map(str, list(content)[:8]))}; weights "
        f"are looked for under {choices(WRAPPERS)}; save them alone: torch.save("
        f"{'checkpoint' if other is None else f'checkpoint[{other!r}]'}, 'weights.pth')"
    )


def _are_weights(content: Any) -> bool:
    return isinstance(content, dict) and bool(content) and all(isinstance(value, Tensor) for value in content.values())


def _reason(error: Exception) -> str:
    """Return why a pickle was not read; one that needs code says which, and the way out."""
    text = " ".join(str(error).split())
    _, found, rest = text.partition("Unsupported global: GLOBAL ")
    if found:
        return (
            f"it needs code to be read ({rest.split(' ')[0]}); where you trust it, read it with torch.load(FILE, "
            "weights_only=False) and torch.save its weights alone"
        )
    return text[:200] or type(error).__name__
