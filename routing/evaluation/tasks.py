"""Tasks: the loss to train on and the metrics to report, which ``routing.quantities`` describes."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from routing.config.registry import TASKS
from routing.models.base import ModelOutput

_log = logging.getLogger(__name__)

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "l1": F.l1_loss,
    "mse": F.mse_loss,
}


class Criterion(Protocol):
    """A loss to train on or to measure by."""

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss (scalar) of one batch."""


class Task(ABC):
    """What a task must answer. ``metric`` is the one that studies optimise by default (its name without the split).

    A task of a plugin also has ``higher_is_better`` for its metric, and may list its further ones as ``quantities``.
    """

    metric: str

    @abstractmethod
    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss (scalar) of one batch."""

    @abstractmethod
    def metrics(self, predictions: Tensor, targets: Tensor) -> dict[str, float]:
        """Return every metric of a whole split."""

    def per_image(self, predictions: Tensor, targets: Tensor) -> Tensor | None:
        """Return ``metric`` of every image (B,) where it is a mean over images, else None."""
        return None

    def headline(self, predictions: Tensor, targets: Tensor) -> float:
        """Return ``metric`` alone."""
        return self.metrics(predictions, targets)[self.metric]


class Classification(Task):
    """Cross-entropy and top-1 accuracy; predictions are logits (N, classes), targets class indices (N,)."""

    metric = "accuracy"

    def __init__(self, loss: str = "auto") -> None:
        self._loss = LOSSES["cross_entropy" if loss == "auto" else loss]

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return self._loss(predictions, targets)

    def metrics(self, predictions: Tensor, targets: Tensor) -> dict[str, float]:
        """Return accuracy in [0, 1] and the mean cross-entropy."""
        correct = self.per_image(predictions, targets).double().mean()
        return {"accuracy": float(correct), "loss": float(F.cross_entropy(predictions.double(), targets))}

    def per_image(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return 1 for every image whose class is predicted, else 0."""
        return (predictions.argmax(dim=1) == targets).float()


class Quality(Task):
    """Quality of an image in [0, 1], 1 is best; predictions (N,), targets (N,)."""

    metric = "srcc"

    def __init__(self, loss: str = "auto") -> None:
        self._loss = LOSSES["l1" if loss == "auto" else loss]
        self._has_warned = False

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean absolute or squared error."""
        return self._loss(predictions, targets)

    def metrics(self, predictions: Tensor, targets: Tensor) -> dict[str, float]:
        """Return SRCC, KRCC, PLCC (raw, and after the logistic mapping) and RMSE of the raw predictions."""
        from routing.evaluation.correlation import agreement, why_not_mapped

        predicted, measured = predictions.double().cpu().numpy(), targets.double().cpu().numpy()
        reason = why_not_mapped(predicted, measured)
        if reason and not self._has_warned:
            _log.warning("plcc_logistic is the raw plcc: %s (said once per run)", reason)
            self._has_warned = True
        return agreement(predicted, measured)

    def headline(self, predictions: Tensor, targets: Tensor) -> float:
        """Return SRCC."""
        from routing.evaluation.correlation import rank_correlation

        return rank_correlation(predictions.double().cpu().numpy(), targets.double().cpu().numpy())


def task_of(name: str, loss: str = "auto") -> Task:
    """Return the task of a data set by name, trained on this loss."""
    task: Task = TASKS.get(name)(loss)
    return task


def total_loss(
    output: ModelOutput, criterion: Criterion, targets: Tensor, wanted: tuple[str, ...] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of the task's loss and the model's own terms (of those ``wanted``), and every term by name."""
    terms = {"task": criterion.loss(output.prediction, targets), **output.losses}
    for name, (weight, prediction) in output.auxiliary.items():
        terms[name] = weight * criterion.loss(prediction, targets)
    summed = [term.reshape(()) for name, term in terms.items() if wanted is None or name in wanted]
    return torch.stack(summed).sum(), terms
