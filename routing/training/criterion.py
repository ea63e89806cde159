"""The loss that is trained on; evaluation reports the task's own, without smoothing and weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from routing.config.training import TrainingSection
from routing.data import Split
from routing.evaluation.tasks import Criterion, Task
from routing.training.seeding import epoch_generator, epoch_order


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy against targets mixed with the uniform distribution (arXiv 1512.00567), classes weighted.

    The sum over the batch is divided by its images, not by their weights as torch does: the weights' mean over the
    training split is 1, and a batch in parts adds up to the whole one.
    """

    label_smoothing: float
    weights: Tensor | None = None

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss (scalar); predictions are logits (B, K), targets classes (B,) or shares (B, K)."""
        if self.weights is None:
            return F.cross_entropy(predictions, targets, label_smoothing=self.label_smoothing)
        weights = self.weights.to(predictions.dtype)
        smoothing = self.label_smoothing
        summed = F.cross_entropy(predictions, targets, weights, reduction="sum", label_smoothing=smoothing)
        return summed / len(targets)


def criterion_of(settings: TrainingSection, task: Task, split: Split, num_classes: int) -> Criterion:
    """Return the training loss: the task's, with label smoothing and class weights where the settings ask for them."""
    is_weighted = settings.class_balance == "weights"
    if not settings.label_smoothing and not is_weighted:
        return task
    return CrossEntropy(settings.label_smoothing, balanced_weights(split.targets, num_classes) if is_weighted else None)


def balanced_weights(targets: Tensor, num_classes: int) -> Tensor:
    """Return a weight per class (K,): N / (K n) for n of N images in K classes; 0 where there is none."""
    counts = torch.bincount(targets, minlength=num_classes)
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(targets) / (present * counts.clamp(min=1)), 0.0).float()


def training_order(settings: TrainingSection, seed: int, epoch: int, split: Split) -> Tensor:
    """Return the images of an epoch (N,): each ``crops_per_image`` times, or drawn so that classes are balanced."""
    count = len(split) * settings.crops_per_image
    if settings.class_balance != "sampling":
        return epoch_order(seed, epoch, count) % len(split)
    targets = split.targets.cpu()
    weights = balanced_weights(targets, int(targets.max()) + 1)[targets]
    ends = weights.double().cumsum(0)
    places = torch.rand(count, dtype=torch.float64, generator=epoch_generator(seed, epoch, "sampling")) * ends[-1]
    return torch.searchsorted(ends, places, right=True).clamp(max=len(split) - 1)
