"""Baselines of patch routing: one branch for all patches, nothing conditional.

Shapes: B batch, N patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from routing.data import DataInfo
from routing.errors import InputError
from routing.models.base import ModelOutput
from routing.models.patch.model import PatchModel
from routing.models.patch.parts import Encoded, mlp_multiply_adds
from routing.models.patch.section import DenseMatchedSection, PatchSection
from routing.models.units import RoutingDecision


class UniformModel(PatchModel):
    """Base of the baselines that send every patch through the one branch they have."""

    decides = False

    def __init__(self, section: PatchSection, info: DataInfo, *, branch: str, has_scores: bool = True) -> None:
        super().__init__(section, info, branches=(branch,), has_scores=has_scores)
        self.branch = branch

    def decide(self, evidence_BN: Tensor) -> RoutingDecision:
        """The same branch for all."""
        hard_BN = torch.full_like(evidence_BN, self.branch == "big", dtype=torch.bool)
        return RoutingDecision(hard_BN, hard_BN.to(evidence_BN.dtype))

    def nominal_ratio(self) -> float:
        """All or nothing."""
        return float(self.branch == "big")

    def dispatch(self, encoded: Encoded, decision: RoutingDecision) -> ModelOutput:
        """Run all patches as one batch: nothing is conditional, in training or after."""
        features = self.expert(self.branch)(encoded.pixels)
        return self.output(self.pool(features, encoded.scores_BN), decision)

    train_form = dispatch


class FullCompute(UniformModel):
    """Every patch through the big MLP, weighted by the scores."""

    def __init__(self, section: PatchSection, info: DataInfo) -> None:
        super().__init__(section, info, branch="big")


class CheapCompute(UniformModel):
    """Every patch through the small MLP, weighted by the scores."""

    def __init__(self, section: PatchSection, info: DataInfo) -> None:
        super().__init__(section, info, branch="small")


class NoRouting(UniformModel):
    """Every patch through the big MLP, averaged: without scores there is no cost of encoder and attention head."""

    def __init__(self, section: PatchSection, info: DataInfo) -> None:
        super().__init__(section, info, branch="big", has_scores=False)


class DenseMatched(UniformModel):
    """full_compute with all hidden layers narrowed by one factor until its cost meets a budget."""

    def __init__(self, section: DenseMatchedSection, info: DataInfo) -> None:
        full = FullCompute(section, info)
        hidden = _matched_hidden(full, section.budget.target)
        experts = section.experts.model_copy(update={"big": hidden})
        super().__init__(section.model_copy(update={"experts": experts}), info, branch="big")
        self.dense_flops = full.dense_flops


def _matched_hidden(full: FullCompute, target: float) -> tuple[int, ...]:
    """Return the hidden widths whose cost is nearest to ``target`` of full_compute's."""
    big, n = full.hidden["big"], full.grid.num_patches
    if not big:
        raise InputError("model.experts.big is empty: dense_matched has no hidden width to make narrower")
    others = full.dense_flops - n * full.branch_multiply_adds("big")

    def share(hidden: tuple[int, ...]) -> float:
        return (others + n * mlp_multiply_adds(full.patch_values, hidden, full.width)) / full.dense_flops

    widest = max(big)
    candidates = [tuple(max(1, round(k * width / widest)) for width in big) for k in range(1, widest + 1)]
    if target < share(candidates[0]):
        raise InputError(
            f"model.budget.target {target:g} is out of reach: with one hidden unit this model costs "
            f"{share(candidates[0]):.3f} of full_compute already (valid: {share(candidates[0]):.3f} <= target <= 1)"
        )
    return min(candidates, key=lambda hidden: abs(share(hidden) - target))
