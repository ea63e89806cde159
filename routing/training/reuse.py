"""One training for many evaluations: ``training.reuse`` takes the weights of an identical training of this machine.

Identical are two trainings with the same settings, data, first weights, plugins and versions. Settings that act only
after training (``evaluation``, and what a model's section names in ``after_training``: token pruning) do not count, so
that an ablation of pruning trains each seed once. Stored beside the cached data (see ``routing.data.cache``); the
folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from routing import __version__
from routing.config import plugins
from routing.config.run import RunConfig
from routing.data import ImageData
from routing.data.cache import cache_folder
from routing.errors import InputError, RoutingError
from routing.files.tensors import load_tensors, save_tensors

KEPT_COLUMNS = ("epoch", "phase", "epoch_seconds", "train_seconds")


def training_digest(config: RunConfig, data: ImageData, model: nn.Module, teacher: nn.Module | None = None) -> str:
    """Return a digest of everything that decides trained weights on this machine.

    Args:
        data: what is trained on; see its ``identity``.
        model: untrained, with the weights its training starts from.
        teacher: whom it learns from, where that is not the model itself.
    """
    content = config.model_dump(mode="json", exclude={"evaluation"})
    patient = [phase.patience for phase in config.training.phases] + [config.training.patience]
    if all(patience is None for patience in patient):  # else evaluation decides when to stop
        for key in () if config.training.reduce_tokens else config.model.after_training:
            content["model"].pop(key, None)
    else:
        content["limit"] = config.evaluation.limit
    for key in ("reuse", "pictures_every"):
        content["training"].pop(key, None)
    for key in config.dataset.how:
        content["dataset"].pop(key, None)
    content["versions"] = [__version__, torch.__version__]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    digest.update(data.identity().encode())
    tensors = [*model.state_dict().values(), *([] if teacher is None else teacher.state_dict().values())]
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    digest.update(plugins.digest(config.plugins).encode())
    return digest.hexdigest()[:24]


@contextmanager
def reusable(
    config: RunConfig, data: ImageData, model: nn.Module, teacher: nn.Module | None = None
) -> Iterator[Path | None]:
    """Yield the file of this training's weights, held so that an identical training waits; None without reuse."""
    if not config.training.reuse:
        yield None
        return
    path = cache_folder() / "trainings" / f"{training_digest(config, data, model, teacher)}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        lock.acquire()
    except OSError as error:
        raise RoutingError(f"{path}: trained weights cannot be kept: {error}; set ROUTING_CACHE") from None
    try:
        yield path
    finally:
        lock.release()


def load_training(path: Path | None, model: nn.Module) -> list[dict[str, Any]] | None:
    """Load the weights of a finished training; return its history without what depends on evaluation, or None."""
    if path is None or not path.is_file():
        return None
    try:
        tensors, metadata = load_tensors(path)
        model.load_state_dict(tensors)
        history = json.loads(metadata["history"])
    except (InputError, KeyError, ValueError, RuntimeError):
        return None
    return history if history else None


def keep_training(path: Path | None, model: nn.Module, history: list[dict[str, Any]]) -> None:
    """Store trained weights and the columns of the history that evaluation has no part in."""
    if path is None or not history:
        return
    rows = [{key: row[key] for key in row if key in KEPT_COLUMNS or key.startswith("train_")} for row in history]
    save_tensors(path, model.state_dict(), {"history": json.dumps(rows)})
