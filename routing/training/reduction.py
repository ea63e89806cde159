"""Token reduction in training: with the configured setting, or with a keep rate drawn for every batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from routing.config.training import TrainingSection
from routing.errors import InputError
from routing.models.base import VisionModel

if TYPE_CHECKING:
    from routing.models.vit.classifier import TransformerClassifier
    from routing.models.vit.setting import Pruning


def check_reduction(settings: TrainingSection, model: VisionModel) -> None:
    """Raise ``InputError`` where the model has no tokens to reduce, or cannot take every keep rate."""
    if settings.reduce_tokens:
        reducible, setting = _reducible(model)
        if settings.keep_rates is not None and setting.acting.is_learned:
            raise InputError(
                f"training.keep_rates: {setting.method} learns to keep one share, that of model.pruning.schedule; the "
                "curve is evaluated all the same (valid: null)"
            )
        for rate in settings.keep_rates or ():
            try:
                setting.at_rate(rate, reducible.host)
            except InputError as error:
                raise InputError(f"training.keep_rates: {error}") from None


def _reducible(model: VisionModel) -> tuple[TransformerClassifier, Pruning]:
    if model.prunable is None:
        raise InputError(
            f"training.reduce_tokens: {type(model).__name__} has no tokens to reduce (valid: vit, torchvision_vit, "
            "timm_vit, transformers_vit)"
        )
    if model.prunable.pruning is None:
        raise InputError(
            "training.reduce_tokens trains with model.pruning, but model.pruning.method is none (valid: a method, such "
            "as evit, with its schedule)"
        )
    return model.prunable, model.prunable.pruning


class TokenReduction:
    """The setting of every batch of an epoch.

    Args:
        generator: draws the keep rates.
    """

    def __init__(self, settings: TrainingSection, model: VisionModel, generator: torch.Generator) -> None:
        self.reducible = _reducible(model) if settings.reduce_tokens else None
        self.rates, self.generator = settings.keep_rates, generator

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Train with fewer tokens inside the context."""
        if self.reducible is None:
            yield
            return
        model, setting = self.reducible
        model.training_pruning = self._drawn(model, setting)
        try:
            yield
        finally:
            model.training_pruning = None

    def _drawn(self, model: TransformerClassifier, setting: Pruning) -> Pruning:
        if self.rates is None:
            return setting
        low, high = self.rates
        return setting.with_rate(low + (high - low) * float(torch.rand((), generator=self.generator)), model.host)
