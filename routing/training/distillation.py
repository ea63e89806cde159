"""Distillation: what is trained also learns what its own dense path, or given weights, say of the same images.

The term is weight * temperature^2 * KL(teacher || student) of the softened distributions (arXiv:1503.02531), for a
quality the squared difference; of tokens the mean squared difference after the last block (as of DynamicViT,
arXiv:2106.02034), each token normalised first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.config.section import ModelSection, Section
from routing.config.training import DistilSection, TrainingSection
from routing.data import DataInfo
from routing.errors import InputError, choices
from routing.files.results_folder import MODEL_FILE
from routing.files.tensors import load_weights
from routing.models import build_model
from routing.models.attention import rows_at
from routing.models.base import ModelOutput, VisionModel
from routing.models.pretrained import model_beside

TERMS = ("distil", "distil_tokens")
KEY = "training.distil.weights"
S = TypeVar("S", bound=Section)


def distillation_terms(settings: DistilSection) -> tuple[str, ...]:
    """Return the names of the loss terms that distillation adds."""
    return () if not settings.weight else TERMS if settings.tokens else TERMS[:1]


def check_distillation(settings: TrainingSection, model: VisionModel) -> None:
    """Raise ``InputError`` where the model cannot be distilled, or is its own teacher in everything it computes."""
    distil = settings.distil
    if not distil.weight:
        return
    if distil.tokens and model.prunable is None:
        raise InputError(f"training.distil.tokens: {type(model).__name__} has no tokens (valid: false)")
    reduced = model.prunable if settings.reduce_tokens else None
    pruning = None if reduced is None else reduced.pruning
    if distil.tokens and reduced and pruning and not (pruning.acting.takes_mask or reduced.host.prefix.count):
        raise InputError(
            f"training.distil.tokens: {pruning.method} leaves no token of this model in its place: it has none before "
            "its patches (valid: false, or a method that keeps tokens as they are, such as importance_diversity)"
        )
    if distil.weights is None and not (model.skips_in_training or _skips(settings, model)):
        raise InputError(
            f"training.distil: {type(model).__name__} skips nothing in training: its own dense path has nothing to "
            "teach it (valid: training.distil.weights, or training.reduce_tokens true with a setting that takes tokens "
            "away)"
        )


def _skips(settings: TrainingSection, model: VisionModel) -> bool:
    """Return whether any batch is trained on fewer tokens."""
    if not settings.reduce_tokens or model.prunable is None or model.prunable.pruning is None:
        return False
    host, pruning = model.prunable.host, model.prunable.pruning
    if settings.keep_rates is not None:
        pruning = pruning.with_rate(settings.keep_rates[0], host)
    return pruning.fewest_tokens(host) < host.num_tokens


def build_teacher(
    settings: DistilSection, section: ModelSection, info: DataInfo, device: torch.device
) -> VisionModel | None:
    """Return the model of the run with the weights of its teacher; None where there is none beside the model itself.

    Raises:
        InputError: weights that cannot be had, or that leave a part of this model untrained.
    """
    if not settings.weight or settings.weights is None:
        return None
    path, has_weights = Path(settings.weights), "weights" in type(section).model_fields
    lent = model_beside(path)
    section = _with_weights_of(section, lent) if lent else section
    section = section.model_copy(update={"weights": settings.weights}) if has_weights else section
    try:
        teacher = build_model(section, info)
        if has_weights:
            teacher.initialise(section)
        else:
            load_weights(teacher, path / MODEL_FILE if path.is_dir() else path)
    except InputError as error:
        text = str(error).removeprefix("model.weights ").removeprefix(f"{path}: ")
        text = text.replace("model.weights", KEY)
        error.args = (text if KEY in text else f"{KEY} {path}: {text}",)
        raise
    if teacher.untrained_parts:
        raise InputError(
            f"{KEY} {path}: no weights for {choices(teacher.untrained_parts)} of this model (valid: "
            "those of a run that trained it on these classes)"
        )
    return teacher.requires_grad_(False).to(device).eval()


def _with_weights_of(section: S, lent: Mapping[str, Any]) -> S:
    """Return a model's section with the weights that a run started from: images are normalised as those were."""
    changes: dict[str, Any] = {}
    for name in type(section).model_fields:
        own, other = getattr(section, name), lent.get(name)
        if isinstance(own, Section) and isinstance(other, Mapping):
            changes[name] = _with_weights_of(own, other)
        elif name == "weights":
            changes[name] = other
    return section.model_copy(update=changes)


@dataclass(frozen=True)
class Distillation:
    """The terms of a batch. teacher: a model with given weights; None: the dense path of the one that is trained."""

    settings: DistilSection
    teacher: VisionModel | None = None

    def add(self, model: VisionModel, output: ModelOutput, images: Tensor, facts: dict[str, Tensor]) -> None:
        """Add the terms of a training step to its output."""
        if not self.settings.weight:
            return
        with torch.no_grad(), _evaluating(self.teacher or model) as teacher:
            taught = teacher.dense_path(images, **facts)
        terms = [weight * self._apart(said, taught.prediction) for weight, said in model.distilled(output)]
        output.losses["distil"] = self.settings.weight * torch.stack(terms).sum()
        if self.settings.tokens:
            assert output.tokens is not None
            assert taught.tokens is not None
            output.losses["distil_tokens"] = self.settings.weight * _tokens_apart(output, taught.tokens)

    def _apart(self, said: Tensor, taught: Tensor) -> Tensor:
        if said.ndim == 1:
            return F.mse_loss(said, taught.float())
        warmth = self.settings.temperature
        wanted = (taught.float() / warmth).log_softmax(dim=1)
        return warmth**2 * F.kl_div(
            (said.float() / warmth).log_softmax(dim=1), wanted, reduction="batchmean", log_target=True
        )


def _tokens_apart(output: ModelOutput, taught_BTD: Tensor) -> Tensor:
    assert output.tokens is not None
    width = taught_BTD.shape[2]
    if output.kept is not None:
        taught_BTD = rows_at(taught_BTD, output.kept)
    said, wanted = (F.layer_norm(tokens.float(), (width,)) for tokens in (output.tokens, taught_BTD))
    if output.left is None:
        return F.mse_loss(said, wanted)
    apart_BT = (said - wanted).square().mean(dim=2)
    return (output.left * apart_BT).sum() / output.left.sum()


@contextmanager
def _evaluating(model: VisionModel) -> Iterator[VisionModel]:
    """Put every part of a model into evaluation mode inside the context: no dropout, no new statistics."""
    training: list[nn.Module] = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield model
    finally:
        for module in training:
            module.training = True
