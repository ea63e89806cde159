"""Routers: attention scores in, a decision per patch out. A router changes nothing but its own threshold.

A router is one class; ``routing.config.registry.ROUTERS`` names it. It defines the ``evidence`` (B, N) that it decides
on, by default the attention scores, and how it decides (``decide``). Controls, which learn nothing, are in
``controls.py``. Shapes: B batch, N patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.grid import PatchGrid
from routing.models.patch.parts import Encoded
from routing.models.units import RoutingDecision

CURVE_SHARES = (0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)


class Router(nn.Module):
    """Base of every router; by itself a hard threshold on the evidence.

    ``needs`` are the annotations beside the pixels (``box``) that its evidence uses. A router with
    ``routes_in_training`` False is trained with every patch on the big branch. One that ``skips_unrouted`` has no
    small branch: patches that are not routed are skipped. ``not_shipped`` is the reason why a model with it cannot be
    exported (``uses the scores of another image``); None: it can.

    Args:
        grid: how patches lie on an image.
        target_ratio: wanted share of patches on the big branch, from the budget.
        threshold_init: first value of a learnable threshold.
        temperature: softness of the gate in training.
        threshold_jitter: noise on the threshold in training, in standard deviations of the batch's evidence.
    """

    knob = "threshold"
    trained_by_budget = True
    needs: tuple[str, ...] = ()
    routes_in_training = True
    skips_unrouted = False
    not_shipped: str | None = None

    def __init__(
        self,
        *,
        grid: PatchGrid,
        target_ratio: float,
        threshold_init: float = 0.0,
        temperature: float = 1.0,
        threshold_jitter: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid, self.num_patches = grid, grid.num_patches
        self.target_ratio = target_ratio
        self.temperature = temperature
        self.jitter = threshold_jitter
        self.threshold = nn.Parameter(torch.tensor(float(threshold_init)))

    def nominal_ratio(self) -> float:
        """Return the share of patches expected on the big branch before training."""
        return self.target_ratio

    def evidence(self, encoded: Encoded) -> Tensor:
        """Return the values (B, N) to decide on; higher values are routed first."""
        return encoded.scores_BN

    def decide(self, evidence_BN: Tensor) -> RoutingDecision:
        """Decide for a batch, in training at a jittered threshold where that is asked for."""
        decision = self.at_threshold(evidence_BN, self.threshold)
        if self.jitter and self.training:
            noise = torch.randn((), device=evidence_BN.device) * self.jitter * evidence_BN.detach().std()
            rate_BN = decision.gate_BN if decision.rate_BN is None else decision.rate_BN
            decision = self.at_threshold(evidence_BN, self.threshold + noise)
            decision.rate_BN = rate_BN  # the budget is of inference, where nothing is jittered
        return decision

    def at_threshold(self, evidence_BN: Tensor, threshold: Tensor) -> RoutingDecision:
        """Straight-through decision (arXiv 1308.3432): hard in value, the sigmoid's gradient for score and t."""
        hard_BN = evidence_BN >= threshold
        return RoutingDecision(hard_BN, straight_through(hard_BN, (evidence_BN - threshold) / self.temperature))

    @property
    def default_knob_value(self) -> float:
        """The knob's value as trained."""
        return self.threshold.item()

    def knob_values(self, evidence_BN: Tensor) -> list[float]:
        """Return thresholds whose routing ratios on this evidence are ``CURVE_SHARES``."""
        ordered = evidence_BN.flatten().float().sort(descending=True).values
        picks = (torch.tensor(CURVE_SHARES) * len(ordered)).round().long().clamp(1, len(ordered)) - 1
        return torch.unique(ordered[picks.to(ordered.device)]).flip(0).tolist()

    def at_knob(self, evidence_BN: Tensor, value: float) -> RoutingDecision:
        """Decide at another value of the knob than the trained one."""
        return self.at_threshold(evidence_BN, torch.full((), value, device=evidence_BN.device))

    def check_knob(self, value: float) -> None:
        """Raise ``InputError`` for a value the knob cannot have; a threshold can have any."""

    def set_knob(self, value: float) -> None:
        """Make ``value`` the default."""
        with torch.no_grad():
            self.threshold.fill_(value)


def straight_through(hard_BN: Tensor, logits_BN: Tensor) -> Tensor:
    """Return the hard decision as float, with the gradient of sigmoid(logits) where gradients are wanted."""
    hard = hard_BN.to(logits_BN.dtype)
    if not torch.is_grad_enabled():
        return hard
    soft_BN = torch.sigmoid(logits_BN)
    return hard + (soft_BN - soft_BN.detach())


class LearnableThreshold(Router):
    """hard = score >= t with a learnable threshold t, trained straight-through."""


class SigmoidGate(Router):
    """A soft gate scales the big branch in training; hard at inference."""

    def at_threshold(self, evidence_BN: Tensor, threshold: Tensor) -> RoutingDecision:
        """Gate = sigmoid((score - t) / temperature) in training, its rounding at inference."""
        decision = super().at_threshold(evidence_BN, threshold)
        if torch.is_grad_enabled() and self.training:
            decision.rate_BN = decision.gate_BN
            decision.gate_BN = torch.sigmoid((evidence_BN - threshold) / self.temperature)
        return decision


class Gumbel(Router):
    """Sampled in training: routed with probability sigmoid(score - t), straight-through (arXiv 1611.01144).

    The budget holds the rate without noise, which is the one at inference.
    """

    def at_threshold(self, evidence_BN: Tensor, threshold: Tensor) -> RoutingDecision:
        """Add logistic noise, the difference of two Gumbel variables, to the score in training."""
        decision = super().at_threshold(evidence_BN, threshold)
        if not (torch.is_grad_enabled() and self.training):
            return decision
        uniform_BN = torch.rand_like(evidence_BN).clamp(1e-6, 1 - 1e-6)
        noisy = super().at_threshold(evidence_BN + uniform_BN.logit(), threshold)
        noisy.rate_BN = decision.gate_BN
        return noisy


class QuantileThreshold(Router):
    """t follows a running quantile of the scores, so that the budget is met with no loss weight to tune."""

    trained_by_budget = False
    MOMENTUM = 0.9

    def __init__(self, *, grid: PatchGrid, target_ratio: float, threshold_init: float = 0.0, **settings: float) -> None:
        super().__init__(grid=grid, target_ratio=target_ratio, threshold_init=threshold_init, **settings)
        del self.threshold
        self.threshold: Tensor
        self.register_buffer("threshold", torch.tensor(float(threshold_init)))
        self.register_buffer("batches_seen", torch.tensor(0.0))
        self.batches_seen: Tensor

    def decide(self, evidence_BN: Tensor) -> RoutingDecision:
        """Move t towards this batch's quantile in training, then decide."""
        if self.training:
            self._follow(evidence_BN.detach())
        return super().decide(evidence_BN)

    @torch.no_grad()
    def _follow(self, evidence_BN: Tensor) -> None:
        count = evidence_BN.numel()
        below = min(count, max(1, count - round(self.target_ratio * count) + 1))
        quantile = evidence_BN.flatten().kthvalue(below).values
        kept = (self.batches_seen / (self.batches_seen + 1)).clamp(max=self.MOMENTUM)  # a plain mean at first
        self.threshold.copy_(kept * self.threshold + (1 - kept) * quantile)
        self.batches_seen += 1


class ShareRouter(Router):
    """Base of routers that route a fixed share of every image's patches; nothing for a budget loss to train."""

    knob = "share"
    trained_by_budget = False

    def __init__(self, *, grid: PatchGrid, target_ratio: float, threshold_jitter: float = 0.0, **settings: float):
        super().__init__(grid=grid, target_ratio=target_ratio, **settings)
        if threshold_jitter:
            raise InputError(
                f"model.router.threshold_jitter {threshold_jitter:g}: {type(self).__name__} routes a fixed share and "
                "has no threshold to jitter (valid: 0)"
            )
        del self.threshold
        self.share: Tensor
        self.register_buffer("share", torch.tensor(float(target_ratio)))
        self._read: tuple[Tensor, int, float] | None = None

    def decide(self, evidence_BN: Tensor) -> RoutingDecision:
        """Route the ``share`` of patches with the most evidence."""
        return self.at_knob(evidence_BN, self.default_knob_value)

    def num_routed(self, share: float) -> int:
        """Return K, patches routed per image: the nearest count, at least one."""
        return max(1, min(self.num_patches, round(share * self.num_patches)))

    def nominal_ratio(self) -> float:
        """The share of whole patches, from the share as it is stored: its rounding may change the count by one."""
        return self.num_routed(self.default_knob_value) / self.num_patches

    @property
    def default_knob_value(self) -> float:
        """The share as configured; read once, and again when it was changed: on a GPU the host waits for a reading."""
        if self.share.is_inference():  # has no count of its changes
            return self.share.item()
        if self._read is None or self._read[0] is not self.share or self._read[1] != self.share._version:
            self._read = self.share, self.share._version, self.share.item()
        return self._read[2]

    def knob_values(self, evidence_BN: Tensor) -> list[float]:
        """Return the ``CURVE_SHARES``, one for every distinct number of patches."""
        counts = sorted({self.num_routed(share) for share in CURVE_SHARES} - {self.num_routed(self.default_knob_value)})
        return [count / self.num_patches for count in counts]

    def at_knob(self, evidence_BN: Tensor, value: float) -> RoutingDecision:
        """Route the share ``value`` of every image's patches; ties go to the lower index."""
        order = evidence_BN.argsort(dim=1, descending=True, stable=True)
        kept_BK = order[:, : self.num_routed(value)]
        hard_BN = torch.zeros_like(evidence_BN, dtype=torch.bool).scatter_(1, kept_BK, True)
        return RoutingDecision(hard_BN, self.gate(evidence_BN, hard_BN, kept_BK), num_hard=kept_BK.numel())

    def gate(self, evidence_BN: Tensor, hard_BN: Tensor, kept_BK: Tensor) -> Tensor:
        """Return the gate (B, N); no gradient by default."""
        return hard_BN.to(evidence_BN.dtype)

    def check_knob(self, value: float) -> None:
        """A share is above 0 and at most 1."""
        if not 0 < value <= 1:
            raise InputError(f"evaluation.knob_value {value:g}: not a share of patches (valid: 0 < share <= 1)")

    def set_knob(self, value: float) -> None:
        """Make ``value`` the default share."""
        self.share.fill_(value)


class TopK(ShareRouter):
    """The patches with the highest scores, the same number in every image."""

    def gate(self, evidence_BN: Tensor, hard_BN: Tensor, kept_BK: Tensor) -> Tensor:
        """Straight-through around the K-th score, which itself is held fixed."""
        threshold = evidence_BN.detach().gather(1, kept_BK[:, -1:])
        return straight_through(hard_BN, (evidence_BN - threshold) / self.temperature)
