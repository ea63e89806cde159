"""Aggregators: patch features and attention scores to one feature per image.

An aggregator is one class; ``routing.config.registry.AGGREGATORS`` names it. One whose result is a weighted sum with
weights known from the scores alone gives ``weights``: inference then adds each feature straight into the pooled output.
Shapes: B batch, N patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Aggregator(nn.Module):
    """Base of every aggregator that is a weighted sum of features.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def weights(self, scores_BN: Tensor) -> Tensor | None:
        """Return the weights (B, N) of the sum, or None where they depend on the features."""
        return None

    def forward(self, features_BND: Tensor, scores_BN: Tensor) -> Tensor:
        """Return the weighted sum over patches (B, D)."""
        weights_BN = self.weights(scores_BN)
        assert weights_BN is not None
        return _weighted_sum(features_BND, weights_BN)

    def multiply_adds(self, num_patches: int) -> int:
        """Return the closed form of one image."""
        return num_patches * self.width


class Mean(Aggregator):
    """Every patch counts the same."""

    def weights(self, scores_BN: Tensor) -> Tensor:
        """Return 1 / N everywhere."""
        return torch.full_like(scores_BN, 1 / scores_BN.shape[1])


class ScoreWeighted(Aggregator):
    """Softmax of the attention scores: the patches that score high for routing also weigh most in the sum."""

    def weights(self, scores_BN: Tensor) -> Tensor:
        """Return softmax(scores) over the patches."""
        return scores_BN.softmax(dim=1)


class AttentionPooling(Aggregator):
    """Softmax of one learned score per feature (attention pooling, arXiv 1802.04712, without its hidden layer).

    The router's scores are not used: the feature of a patch decides its weight.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.relevance = nn.Linear(width, 1)

    def forward(self, features_BND: Tensor, scores_BN: Tensor) -> Tensor:
        """Return the sum weighted by the relevance of each feature."""
        return _weighted_sum(features_BND, self.relevance(features_BND).squeeze(-1).float().softmax(dim=1))

    def multiply_adds(self, num_patches: int) -> int:
        """Return the closed form of one image: relevance, then the sum."""
        return 2 * num_patches * self.width


def _weighted_sum(features_BND: Tensor, weights_BN: Tensor) -> Tensor:
    return torch.bmm(weights_BN.to(features_BND.dtype).unsqueeze(1), features_BND).squeeze(1)
