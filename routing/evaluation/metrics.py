"""Further metrics of an evaluation, asked for by name (``evaluation.metrics``).

A metric is one class; ``routing.config.registry.METRICS`` names it. What its number is (direction, words, range, the
tasks it is defined for) stands in ``routing.quantities``; a plugin's metric declares it in class attributes.
Shapes: M images, C classes.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Metric(Protocol):
    """What a metric must answer."""

    def __call__(self, predictions: Tensor, targets: Tensor) -> float:
        """Return the metric of a whole split: logits (M, C) and classes (M,), or quality (M,) and (M,)."""


class Top5Accuracy:
    """Share of images whose class is among the five most likely."""

    def __call__(self, predictions: Tensor, targets: Tensor) -> float:
        """Return the share in [0, 1]; with five classes or fewer it is 1."""
        top = predictions.topk(min(5, predictions.shape[1]), dim=1).indices
        return float((top == targets.unsqueeze(1)).any(dim=1).double().mean())


class BalancedAccuracy:
    """Accuracy within every class, averaged over the classes that occur: frequent ones count no more than rare ones."""

    def __call__(self, predictions: Tensor, targets: Tensor) -> float:
        """Return the mean in [0, 1]."""
        correct = (predictions.argmax(dim=1) == targets).double()
        count = torch.bincount(targets, minlength=predictions.shape[1])
        hits = torch.bincount(targets, weights=correct, minlength=predictions.shape[1])
        return float((hits[count > 0] / count[count > 0]).mean())


class CalibrationError:
    """Expected calibration error (arXiv 1706.04599, eq. 3) over 15 equal bins of confidence."""

    BINS = 15

    def __call__(self, predictions: Tensor, targets: Tensor) -> float:
        """Return the mean absolute difference of confidence and accuracy, in [0, 1]."""
        confidence, chosen = predictions.double().softmax(dim=1).max(dim=1)
        correct = (chosen == targets).double()
        bins = (confidence * self.BINS).long().clamp(max=self.BINS - 1)
        difference = torch.bincount(bins, weights=correct - confidence, minlength=self.BINS)
        return float(difference.abs().sum() / len(targets))
