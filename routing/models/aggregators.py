"""Aggregators: patch features and attention scores to one feature per image.

An aggregator is one class; ``routing.registry.AGGREGATORS`` names it. One whose result is a weighted sum with weights
known from the scores alone gives ``weights``: inference then adds each feature straight into the pooled output.
Shapes: B batch, N patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Aggregator(nn.Module):
    """Base of every aggregator that is a weighted sum of features."""

    def weights(self, scores_BN: Tensor) -> Tensor:
        """Return the weights (B, N) of the sum."""
        raise TypeError(f"{type(self).__name__} has no weights")

    def forward(self, features_BND: Tensor, weights_BN: Tensor) -> Tensor:
        """Return the weighted sum over patches (B, D)."""
        return torch.bmm(weights_BN.unsqueeze(1), features_BND).squeeze(1)


class Mean(Aggregator):
    """Every patch counts the same."""

    def weights(self, scores_BN: Tensor) -> Tensor:
        """Return 1 / N everywhere."""
        return torch.full_like(scores_BN, 1 / scores_BN.shape[1])


class ScoreWeighted(Aggregator):
    """Softmax of the attention scores: the patches worth looking at are the patches worth listening to."""

    def weights(self, scores_BN: Tensor) -> Tensor:
        """Return softmax(scores) over the patches."""
        return scores_BN.softmax(dim=1)
