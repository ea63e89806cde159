"""Losses that hold a router to its compute."""

from __future__ import annotations

from torch import Tensor, nn


class BudgetLoss(nn.Module):
    """``weight * penalty(realised - target)`` on a realised cost (share of full compute, or of patches).

    ``squared`` is two-sided and stable. ``hinge`` (penalises cost above the target only) and ``l1`` (penalises all
    cost, regardless of the target) are arms for ablations: both can collapse to a router that routes nothing.
    """

    def __init__(self, kind: str, weight: float, target: float) -> None:
        super().__init__()
        self.kind, self.target = kind, target
        self.weight = 0.0 if kind == "none" else weight

    def forward(self, realised: Tensor) -> Tensor:
        """Return the weighted loss (scalar) of a realised cost (scalar)."""
        if self.kind == "squared":
            return self.weight * (realised - self.target) ** 2
        if self.kind == "hinge":
            return self.weight * (realised - self.target).clamp(min=0)
        return self.weight * realised
