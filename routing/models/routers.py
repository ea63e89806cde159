"""Routers: attention scores in, a decision per patch out. A router changes nothing but its own threshold.

A router is one class with ``decide``; ``routing.registry.ROUTERS`` names it. Shapes: B batch, N patches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

CURVE_SHARES = (0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)


@dataclass
class RoutingDecision:
    """A router's answer.

    hard_BN: bool, the patch takes the big branch.
    gate_BN: float, scales the big branch in training; ``hard_BN`` in value unless the router trains a soft gate.
    rate_BN: float, ``hard_BN`` in value, differentiable: what a budget loss holds to its target.
    metrics: scalars for the history.
    """

    hard_BN: Tensor
    gate_BN: Tensor
    rate_BN: Tensor | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def rate(self) -> Tensor:
        """Return the realised routing ratio of the batch (scalar), with a gradient where the router has one."""
        return (self.gate_BN if self.rate_BN is None else self.rate_BN).mean()


class Router(nn.Module):
    """Base of every router.

    Args:
        num_patches: N.
        target_ratio: wanted share of patches on the big branch, from the budget.
        threshold_init: first value of a learnable threshold.
        temperature: softness of the gate in training.
    """

    knob = "threshold"
    trained_by_budget = True

    def __init__(self, num_patches: int, target_ratio: float, threshold_init: float, temperature: float) -> None:
        super().__init__()
        self.num_patches = num_patches
        self.target_ratio = target_ratio
        self.temperature = temperature
        self.threshold = nn.Parameter(torch.tensor(float(threshold_init)))

    def decide(self, scores_BN: Tensor) -> RoutingDecision:
        """Decide for a batch of scores (B, N)."""
        return self.at_threshold(scores_BN, self.threshold)

    def at_threshold(self, scores_BN: Tensor, threshold: Tensor) -> RoutingDecision:
        """Straight-through decision (arXiv 1308.3432): hard in value, the sigmoid's gradient for score and t."""
        hard_BN = scores_BN >= threshold
        if not torch.is_grad_enabled():
            return RoutingDecision(hard_BN, hard_BN.to(scores_BN.dtype))
        soft_BN = torch.sigmoid((scores_BN - threshold) / self.temperature)
        return RoutingDecision(hard_BN, hard_BN.to(scores_BN.dtype) + (soft_BN - soft_BN.detach()))

    @property
    def default_knob_value(self) -> float:
        """The knob's value as trained."""
        return self.threshold.item()

    def knob_values(self, scores_BN: Tensor) -> list[float]:
        """Return thresholds whose routing ratios on these scores are ``CURVE_SHARES``."""
        ordered = scores_BN.flatten().float().sort(descending=True).values
        picks = (torch.tensor(CURVE_SHARES) * len(ordered)).round().long().clamp(1, len(ordered)) - 1
        return torch.unique(ordered[picks.to(ordered.device)]).flip(0).tolist()

    def at_knob(self, scores_BN: Tensor, value: float) -> RoutingDecision:
        """Decide at another value of the knob than the trained one."""
        return self.at_threshold(scores_BN, torch.tensor(value, device=scores_BN.device))

    def set_knob(self, value: float) -> None:
        """Make ``value`` the default."""
        with torch.no_grad():
            self.threshold.fill_(value)


class LearnableThreshold(Router):
    """hard = score >= t with a learnable threshold t, trained straight-through."""


class SigmoidGate(Router):
    """A soft gate scales the big branch in training; hard at inference."""

    def at_threshold(self, scores_BN: Tensor, threshold: Tensor) -> RoutingDecision:
        """Gate = sigmoid((score - t) / temperature) in training, its rounding at inference."""
        decision = super().at_threshold(scores_BN, threshold)
        if torch.is_grad_enabled() and self.training:
            decision.rate_BN = decision.gate_BN
            decision.gate_BN = torch.sigmoid((scores_BN - threshold) / self.temperature)
        return decision


class ShareRouter(Router):
    """Base of routers that route a fixed share of every image's patches; nothing for a budget loss to train."""

    knob = "share"
    trained_by_budget = False

    def __init__(self, num_patches: int, target_ratio: float, threshold_init: float, temperature: float) -> None:
        super().__init__(num_patches, target_ratio, threshold_init, temperature)
        del self.threshold
        self.register_buffer("share", torch.tensor(float(target_ratio)))

    def decide(self, scores_BN: Tensor) -> RoutingDecision:
        """Route the ``share`` of patches with the highest ``ranking``."""
        return self.at_knob(scores_BN, float(self.share))

    def ranking(self, scores_BN: Tensor) -> Tensor:
        """Return the values (B, N) whose largest are routed."""
        return scores_BN

    def num_routed(self, share: float) -> int:
        """Return K, patches routed per image: the nearest count, at least one."""
        return max(1, min(self.num_patches, round(share * self.num_patches)))

    @property
    def default_knob_value(self) -> float:
        """The share as configured."""
        return self.share.item()

    def knob_values(self, scores_BN: Tensor) -> list[float]:
        """Return one share for every different number of patches that ``CURVE_SHARES`` stand for."""
        counts = sorted({self.num_routed(share) for share in CURVE_SHARES} - {self.num_routed(float(self.share))})
        return [count / self.num_patches for count in counts]

    def at_knob(self, scores_BN: Tensor, value: float) -> RoutingDecision:
        """Route the share ``value`` of every image's patches; ties go to the lower index."""
        order = self.ranking(scores_BN).argsort(dim=1, descending=True, stable=True)
        kept_BK = order[:, : self.num_routed(value)]
        hard_BN = torch.zeros_like(scores_BN, dtype=torch.bool).scatter_(1, kept_BK, True)
        return RoutingDecision(hard_BN, self.gate(scores_BN, hard_BN, kept_BK))

    def gate(self, scores_BN: Tensor, hard_BN: Tensor, kept_BK: Tensor) -> Tensor:
        """Return the gate (B, N); no gradient by default."""
        return hard_BN.to(scores_BN.dtype)

    def set_knob(self, value: float) -> None:
        """Make ``value`` the default share."""
        self.share.fill_(value)


class TopK(ShareRouter):
    """The patches with the highest scores, the same number in every image."""

    def gate(self, scores_BN: Tensor, hard_BN: Tensor, kept_BK: Tensor) -> Tensor:
        """Straight-through around the K-th score, which itself is held fixed."""
        hard = hard_BN.to(scores_BN.dtype)
        if not torch.is_grad_enabled():
            return hard
        threshold = scores_BN.detach().gather(1, kept_BK[:, -1:])
        soft_BN = torch.sigmoid((scores_BN - threshold) / self.temperature)
        return hard + (soft_BN - soft_BN.detach())


class Random(ShareRouter):
    """Control: patches by lot, the same number in every image; drawn anew in training, fixed in evaluation."""

    EVALUATION_SEED = 20_240_917

    def ranking(self, scores_BN: Tensor) -> Tensor:
        """Return uniform noise (B, N)."""
        if self.training:
            return torch.rand(scores_BN.shape, device=scores_BN.device)
        generator = torch.Generator().manual_seed(self.EVALUATION_SEED)
        return torch.rand(scores_BN.shape, generator=generator).to(scores_BN.device)
