"""Distillation: what is trained also learns what its own dense path, or given weights, say of the same images.

The term is weight * temperature^2 * KL(teacher || student) of the softened distributions (arXiv:1503.02531), for a
quality the squared difference; of tokens the mean squared difference after the last block (as of DynamicViT,
arXiv:2106.02034), each token normalised first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.config.section import ModelSection
from routing.config.training import DistilSection, TrainingSection
from routing.data import DataInfo
from routing.errors import InputError, choices
from routing.files.results_folder import MODEL_FILE
from routing.files.tensors import load_weights
from routing.models import build_model
from routing.models.base import ModelOutput, VisionModel

TERMS = ("distil", "distil_tokens")


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
    skips = model.skips_in_training or settings.reduce_tokens
    if distil.weights is None and not skips:
        raise InputError(
            f"training.distil: {type(model).__name__} skips nothing in training: its own dense path has nothing to "
            "teach it (valid: training.distil.weights, or training.reduce_tokens true)"
        )


def build_teacher(
    settings: DistilSection, section: ModelSection, info: DataInfo, device: torch.device
) -> VisionModel | None:
    """Return the model of the run with the weights of its teacher; None where there is none beside the model itself.

    Raises:
        InputError: weights that cannot be had, or that leave a part of this model untrained.
    """
    if not settings.weight or settings.weights is None:
        return None
    teacher, path = build_model(section, info), Path(settings.weights)
    if path.is_dir() or "weights" not in type(section).model_fields:
        load_weights(teacher, path / MODEL_FILE if path.is_dir() else path)
    else:
        teacher.initialise(section.model_copy(update={"weights": settings.weights}))
    if teacher.untrained_parts:
        raise InputError(
            f"training.distil.weights {path}: no weights for {choices(teacher.untrained_parts)} of this model (valid: "
            "those of a run that trained it on these classes)"
        )
    return teacher.requires_grad_(False).to(device).eval()


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
        taught_BTD = taught_BTD.gather(1, output.kept[..., None].expand(-1, -1, width))
    said, wanted = (F.layer_norm(tokens.float(), (width,)) for tokens in (output.tokens, taught_BTD))
    return F.mse_loss(said, wanted)


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
