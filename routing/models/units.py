"""Models that route: each unit of an image (patch, position, token) takes an expensive or a cheap path.

A model that answers ``RoutedModel`` gets its certificate, the pictures of its units and its export from that alone.
Shapes: B batch, N = g * g units on a square grid, row by row.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from routing.models.attention import AttentionLayer
from routing.models.base import ModelOutput, VisionModel
from routing.models.grid import PatchGrid


@dataclass
class RoutingDecision:
    """A router's answer.

    hard_BN: bool, the unit takes the expensive path.
    gate_BN: float, scales the expensive path in training; ``hard_BN`` in value unless the router trains a soft gate.
    rate_BN: float, whose mean is the routing ratio at inference, differentiable: what a budget loss holds to its
        target. None: ``gate_BN`` is that.
    metrics: scalars for the history.
    num_hard: how many units of the whole batch take the expensive path, where the host knows it; None: not yet.
    """

    hard_BN: Tensor
    gate_BN: Tensor
    rate_BN: Tensor | None = None
    metrics: dict[str, float | Tensor] = field(default_factory=dict)
    num_hard: int | None = None

    def rate(self) -> Tensor:
        """Return the realised routing ratio of the batch (scalar), with a gradient where the router has one."""
        return (self.gate_BN if self.rate_BN is None else self.rate_BN).mean()


def rows_of(hard_M: Tensor, num_hard: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the indices of True and those of False, both ascending.

    On a GPU shapes must be known to the host: it waits once for the count, or not at all where ``num_hard`` is given.
    """
    if not hard_M.is_cuda:
        return hard_M.nonzero().squeeze(1), (~hard_M).nonzero().squeeze(1)
    order = (~hard_M).byte().argsort(stable=True)
    num_hard = int(hard_M.sum()) if num_hard is None else num_hard
    return order[:num_hard], order[num_hard:]


def count_together(decisions: Sequence[RoutingDecision]) -> None:
    """Let the host know ``num_hard`` of all decisions, waiting for a GPU once and not for each."""
    if decisions and decisions[0].hard_BN.is_cuda:
        counts = torch.stack([decision.hard_BN.sum() for decision in decisions]).tolist()
        for decision, count in zip(decisions, counts, strict=True):
            decision.num_hard = count


@dataclass
class Scored:
    """Results that do not depend on the decision; a model adds fields of its own.

    scores_BN: raw scores of the units, those of the certificate's gradient and of the pictures.
    """

    scores_BN: Tensor


S = TypeVar("S", bound=Scored)


class RoutedModel(VisionModel, Generic[S]):
    """Base of models that decide unit by unit: ``encode``, then ``decide`` on the ``evidence``, then ``dispatch``.

    grid: how the units lie on the image.
    target_ratio: share of units the budget asks for, None where there is none.
    threshold, temperature: of a router that compares evidence with a threshold; None of one that does not.
    decides: False of a baseline, which sends every unit the same way: it gets pictures and no certificate.
    """

    grid: PatchGrid
    target_ratio: float | None = None
    decides: bool = True

    @property
    def routed(self) -> RoutedModel[Any] | None:
        """The model itself."""
        return self

    @property
    def threshold(self) -> Tensor | None:
        """The threshold that evidence is compared with; none by default."""
        return None

    @property
    def temperature(self) -> float | None:
        """Softness of the gate around the threshold; none by default."""
        return None

    def dense_path(self, images: Tensor, **facts: Tensor) -> ModelOutput:
        """Predict with every unit on the expensive path."""
        encoded = self.encode(images, **facts)
        return self.dispatch(encoded, everywhere(encoded))

    @property
    def skips_in_training(self) -> bool:
        """Where it decides."""
        return self.decides

    @abstractmethod
    def encode(self, images: Tensor, **facts: Tensor) -> S:
        """Return the scores, and all else that does not depend on the decision, of normalised images (B, C, H, W)."""

    def evidence(self, encoded: S) -> Tensor:
        """Return the values (B, N) that ``decide`` is asked about; by default the scores."""
        return encoded.scores_BN

    @abstractmethod
    def decide(self, evidence_BN: Tensor) -> RoutingDecision:
        """Choose the path of every unit."""

    @abstractmethod
    def dispatch(self, encoded: S, decision: RoutingDecision) -> ModelOutput:
        """Run each unit through the path of *this* decision, whatever made it, and through no other path."""

    def train_form(self, encoded: S, decision: RoutingDecision) -> ModelOutput:
        """Return the output that training differentiates; by default that of ``dispatch``."""
        return self.dispatch(encoded, decision)

    @abstractmethod
    def expensive_multiply_adds(self) -> int:
        """Return the closed form of one unit on the expensive path."""

    def forward(self, images: Tensor, **facts: Tensor) -> ModelOutput:
        """Predict; the training form where gradients are wanted, truly conditional otherwise."""
        encoded = self.encode(images, **facts)
        decision = self.decide(self.evidence(encoded))
        if self.training and torch.is_grad_enabled():
            return self.train_form(encoded, decision)
        output = self.dispatch(encoded, decision)
        output.decided = decision.hard_BN if self.decides else None
        return output

    @torch.no_grad()
    def attention_layers(self, images: Tensor) -> list[AttentionLayer]:
        """Return the softmax of the scores as the one layer of attention."""
        if self.routed is None:
            return super().attention_layers(images)
        maps = self.encode(images).scores_BN.float().softmax(dim=1)[:, None, None]
        return [AttentionLayer("patch scores", maps, (self.grid.grid, self.grid.grid), has_cls=False)]


def everywhere(scored: Scored) -> RoutingDecision:
    """Return the decision that routes every unit."""
    hard_BN = torch.ones_like(scored.scores_BN, dtype=torch.bool)
    return RoutingDecision(hard_BN, hard_BN.to(scored.scores_BN.dtype), num_hard=hard_BN.numel())
