"""Tensors on disk: safetensors only, so that reading a file never runs code."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from routing.errors import InputError
from routing.files.atomic import replacing
from routing.files.results_folder import BEST_FILE, MODEL_FILE

DATA = "data"
"""Key of the metadata of weights under which ``DataInfo`` stands: what they were trained for."""
_NO_ROOM = "No space left on device"
T = TypeVar("T")


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Replace ``path`` in one step by a safetensors file."""
    try:
        with replacing(path) as temporary:
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary, metadata)
    except BaseException as error:
        if _NO_ROOM in str(error) and not isinstance(error, OSError):  # safetensors reports it only in its message
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; a missing, truncated or foreign file is an ``InputError``."""
    return _read(path, lambda file: file.metadata() or {})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file; a missing, truncated or foreign file is an ``InputError``."""
    return _read(path, lambda file: ({key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}))  # noqa: SIM118


def _read(path: Path, what: Callable[[Any], T]) -> T:
    try:
        with safe_open(path, framework="pt") as file:
            return what(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {str(error).splitlines()[0]}") from None


def load_weights(model: nn.Module, path: Path, added: tuple[str, ...] = ()) -> None:
    """Load ``model.safetensors`` into a model of the same shapes.

    Args:
        added: parts that either may lack; the model's own stay as they are.
    """
    tensors, _ = load_tensors(path)
    if added:
        own, begins = model.state_dict(), tuple(f"{name}." for name in added)
        tensors = {key: value for key, value in tensors.items() if key in own or not key.startswith(begins)}
        tensors = {**{key: value for key, value in own.items() if key.startswith(begins)}, **tensors}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit this model: {' '.join(str(error).split())[:200]}") from None


def save_models(folder: Path, model: nn.Module, best: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Save the last weights, and the best ones where they are known; one file is both where they are the same."""
    last = model.state_dict()
    save_tensors(folder / MODEL_FILE, last, metadata)
    (folder / BEST_FILE).unlink(missing_ok=True)
    if best and all(torch.equal(value, last[key].to(value.device)) for key, value in best.items()):
        with suppress(OSError):  # without links there are two files
            os.link(folder / MODEL_FILE, folder / BEST_FILE)
            return
    if best:
        save_tensors(folder / BEST_FILE, best, metadata)
