"""The loss that is trained on; evaluation reports the task's own, without smoothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from routing.config.training import TrainingSection
from routing.evaluation.tasks import Criterion, Task


@dataclass(frozen=True)
class SmoothedCrossEntropy:
    """Cross-entropy against targets mixed with the uniform distribution (arXiv 1512.00567)."""

    label_smoothing: float

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss (scalar); predictions are logits (B, classes), targets class indices (B,)."""
        return F.cross_entropy(predictions, targets, label_smoothing=self.label_smoothing)


def criterion_of(settings: TrainingSection, task: Task) -> Criterion:
    """Return what a training minimises: the task's loss, smoothed where the settings say so."""
    return SmoothedCrossEntropy(settings.label_smoothing) if settings.label_smoothing else task
