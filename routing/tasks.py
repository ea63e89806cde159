"""Tasks: the loss to train on and the metrics to report, with their directions."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from routing.registry import TASKS


class Task(Protocol):
    """What a task must answer. ``metric`` is the one that studies optimise by default (its name without the split)."""

    metric: str
    higher_is_better: bool

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss (scalar) of one batch."""

    def metrics(self, predictions: Tensor, targets: Tensor) -> dict[str, float]:
        """Return every metric of a whole split."""


class Classification:
    """Cross-entropy and top-1 accuracy; predictions are logits (N, classes), targets class indices (N,)."""

    metric = "accuracy"
    higher_is_better = True

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return F.cross_entropy(predictions, targets)

    def metrics(self, predictions: Tensor, targets: Tensor) -> dict[str, float]:
        """Return accuracy in [0, 1] and the mean cross-entropy."""
        correct = (predictions.argmax(dim=1) == targets).double().mean()
        return {"accuracy": float(correct), "loss": float(F.cross_entropy(predictions.double(), targets))}


def task_of(name: str) -> Task:
    """Return the task of a data set by name."""
    task: Task = TASKS.get(name)()
    return task
