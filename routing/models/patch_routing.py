"""Patch routing: attention scores send each patch of the original image to a big or a small MLP.

    image -> light encoder -> score per patch -> router -> big or small MLP on the cropped patch -> weighted sum -> head

Inference is truly conditional: routed patches are gathered by flat index, run through their MLP, and added straight
into the pooled output; the big MLP never sees an unrouted patch. Training (counterfactual) runs the small MLP on all
patches and the big one only where routed: out = small + gate * (big - small).

Shapes: B batch, N = g * g patches, K routed patches of the whole batch, P values per cropped patch, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.data import DataInfo
from routing.data.patches import PatchGrid
from routing.errors import InputError
from routing.models.aggregators import Aggregator
from routing.models.base import CountedPart, KnobValue, ModelOutput, VisionModel
from routing.models.routers import Router, RoutingDecision
from routing.models.sections import AttentionRoutingSection, BudgetSection, PatchSection
from routing.registry import AGGREGATORS, ROUTERS
from routing.training.budget import BudgetLoss


class LightEncoder(nn.Module):
    """Average pool, then three small convolutions, resampled to one feature per patch: (B, C, H, W) -> (B, N, E).

    Strides halve the map while it stays at least as fine as the patch grid.
    """

    def __init__(self, channels_in: int, channels: int, pool: int, grid: PatchGrid) -> None:
        super().__init__()
        self.pool, self.grid = pool, grid.grid
        size = grid.input_size // pool
        if size < self.grid:
            raise InputError(
                f"model.encoder.pool {pool} leaves {size} x {size} pixels, coarser than dataset.patch_grid_size "
                f"{self.grid}"
            )
        layers: list[nn.Module] = []
        self.multiply_adds = 0
        for index in range(3):
            halve = index < 2 and (size + 1) // 2 >= self.grid
            size = (size + 1) // 2 if halve else size
            layers += [
                nn.Conv2d(channels_in, channels, 3, stride=2 if halve else 1, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            self.multiply_adds += 9 * channels_in * channels * size**2
            channels_in = channels
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, N, E)."""
        features = self.layers(F.avg_pool2d(images, self.pool))
        if features.shape[-1] != self.grid:
            features = F.adaptive_avg_pool2d(features, self.grid)
        return features.flatten(2).transpose(1, 2)


class AttentionHead(nn.Module):
    """One score per patch from its encoder feature: (B, N, E) -> (B, N)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1)

    def forward(self, features_BNE: Tensor) -> Tensor:
        """Return raw scores; computed in float32 also under autocast, a rounded score flips decisions."""
        with torch.autocast(features_BNE.device.type, enabled=False):
            return self.score(features_BNE.float()).squeeze(-1)


def mlp(width_in: int, hidden: Sequence[int], width_out: int) -> nn.Sequential:
    """Return Linear-ReLU layers of these widths; the last Linear has no activation."""
    widths = [width_in, *hidden, width_out]
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mlp_multiply_adds(width_in: int, hidden: Sequence[int], width_out: int) -> int:
    """Return the multiply-adds of ``mlp`` for one row."""
    return sum(a * b for a, b in pairwise([width_in, *hidden, width_out]))


@dataclass
class Encoded:
    """What is computed once per image whatever the decision: ``scores`` (B, N) and a view of the cropped patches."""

    scores_BN: Tensor
    patches: Tensor


class PatchModel(VisionModel):
    """Encoder, scores, experts, aggregator and head; a subclass decides which patch takes which branch.

    ``branches`` are the experts a subclass really has.
    """

    branches: tuple[str, ...] = ("big", "small")
    has_scores = True

    def __init__(self, section: PatchSection, info: DataInfo) -> None:
        super().__init__()
        self.grid = PatchGrid(info.input_size, info.patch_grid_size, info.patch_margin)
        self.image_shape = (info.channels, info.input_size, info.input_size)
        self.patch_values = info.channels * self.grid.side**2
        self.hidden = {"big": section.experts.big, "small": section.experts.small}
        self.width, self.num_outputs = section.experts.width, info.num_outputs
        if self.has_scores:
            settings = section.encoder
            self.encoder = LightEncoder(info.channels, settings.channels, settings.pool, self.grid)
            self.attention = AttentionHead(settings.channels)
        for branch in self.branches:
            setattr(self, branch, mlp(self.patch_values, self.hidden[branch], self.width))
        self.aggregator: Aggregator = AGGREGATORS.get(section.aggregator)()
        self.head = nn.Linear(self.width, info.num_outputs)
        self.cheapest_flops, self.dense_flops = self.flops_at(0.0), self.flops_at(1.0)

    def encode(self, images: Tensor) -> Encoded:
        """Score every patch and cut the original image into (not yet copied) patches."""
        return Encoded(self.attention(self.encoder(images)), self.grid.view(images))

    def decide(self, scores_BN: Tensor) -> RoutingDecision:
        """Choose the branch of every patch."""
        raise TypeError(f"{type(self).__name__} does not decide")

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict; the masked training form where gradients are wanted, truly conditional otherwise."""
        encoded = self.encode(images)
        decision = self.decide(encoded.scores_BN)
        if self.training and torch.is_grad_enabled():
            return self.counterfactual(encoded, decision)
        return self.dispatch(encoded, decision)

    def dispatch(self, encoded: Encoded, decision: RoutingDecision) -> ModelOutput:
        """Run each patch through its branch only, adding features straight into the pooled output."""
        weights_BN = self.aggregator.weights(encoded.scores_BN)
        flat_hard, flat_weights = decision.hard_BN.flatten(), weights_BN.flatten()
        pooled_BD = weights_BN.new_zeros(len(weights_BN), self.width)
        for branch, taken in (("big", flat_hard), ("small", ~flat_hard)):
            rows = taken.nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            features_KD = self.expert(branch)(self.grid.crop(encoded.patches, rows))
            weighted_KD = features_KD * flat_weights[rows].unsqueeze(1)
            images = torch.div(rows, self.grid.num_patches, rounding_mode="floor")
            pooled_BD.index_add_(0, images, weighted_KD.to(pooled_BD.dtype))
        return self._output(pooled_BD, decision)

    def counterfactual(self, encoded: Encoded, decision: RoutingDecision) -> ModelOutput:
        """Training form: small on all patches, big only where routed, out = small + gate * (big - small)."""
        batch_size = len(encoded.scores_BN)
        pixels = encoded.patches.reshape(batch_size * self.grid.num_patches, -1)
        features = self.expert("small")(pixels)
        rows = decision.hard_BN.flatten().nonzero().squeeze(1)
        change_KD = self.expert("big")(pixels[rows]) - features[rows]
        gated_KD = change_KD * decision.gate_BN.flatten()[rows].unsqueeze(1)
        features = features.index_add(0, rows, gated_KD.to(features.dtype))
        return self._output(self._pool(features, encoded.scores_BN), decision)

    def expert(self, branch: str) -> nn.Sequential:
        """Return the MLP of a branch."""
        module = getattr(self, branch)
        assert isinstance(module, nn.Sequential)
        return module

    def _pool(self, features: Tensor, scores_BN: Tensor) -> Tensor:
        features_BND = features.view(*scores_BN.shape, -1)
        return self.aggregator(features_BND, self.aggregator.weights(scores_BN).to(features_BND.dtype))

    def _output(self, pooled_BD: Tensor, decision: RoutingDecision) -> ModelOutput:
        n = self.grid.num_patches
        big = decision.hard_BN.sum(1)
        units = {"big": big, "small": n - big}
        return ModelOutput(
            prediction=self.head(pooled_BD).float(),
            metrics=dict(decision.metrics),
            units_executed={branch: units[branch] for branch in self.branches},
        )

    def branch_multiply_adds(self, branch: str) -> int:
        """Return the closed form of one patch through a branch."""
        return mlp_multiply_adds(self.patch_values, self.hidden[branch], self.width)

    def counted_parts(self) -> dict[str, CountedPart]:
        """Encoder and scores once per image, experts per patch, weighted sum and head once."""
        n = self.grid.num_patches
        parts: dict[str, CountedPart] = {}
        if self.has_scores:
            channels = self.attention.score.in_features
            parts["encoder"] = CountedPart(
                self.encoder, (torch.zeros(1, *self.image_shape),), self.encoder.multiply_adds
            )
            parts["attention"] = CountedPart(self.attention, (torch.zeros(1, n, channels),), n * channels)
        for branch in self.branches:
            row = torch.zeros(1, self.patch_values)
            parts[branch] = CountedPart(self.expert(branch), (row,), self.branch_multiply_adds(branch), None)
        sum_inputs = (torch.zeros(1, n, self.width), torch.zeros(1, n))
        parts["aggregator"] = CountedPart(self.aggregator, sum_inputs, n * self.width)
        parts["head"] = CountedPart(self.head, (torch.zeros(1, self.width),), self.width * self.num_outputs)
        return parts

    def flops_at(self, ratio: float) -> float:
        """Return multiply-adds per image when this share of patches takes the big branch, the rest the small one."""
        n = self.grid.num_patches
        static = sum(part.per_unit for part in self.counted_parts().values() if part.static_units is not None)
        big, small = self.branch_multiply_adds("big"), self.branch_multiply_adds("small")
        return static + n * (ratio * big + (1 - ratio) * small)

    def nominal_ratio(self) -> float:
        """Return the share of patches expected on the big branch before training."""
        raise TypeError(f"{type(self).__name__} has no nominal ratio")

    def nominal_units(self) -> dict[str, float]:
        """Return expected patches per branch."""
        n, ratio = self.grid.num_patches, self.nominal_ratio()
        units = {"big": n * ratio, "small": n * (1 - ratio)}
        return {branch: units[branch] for branch in self.branches}


class AttentionRouting(PatchModel):
    """A router decides patch by patch; its budget is a share of the compute of full_compute."""

    def __init__(self, section: AttentionRoutingSection, info: DataInfo) -> None:
        super().__init__(section, info)
        settings = section.router
        self.target_ratio = self._target_ratio(settings.budget)
        self.router: Router = ROUTERS.get(settings.mode)(
            num_patches=self.grid.num_patches,
            target_ratio=self.target_ratio,
            threshold_init=settings.threshold_init,
            temperature=settings.temperature,
        )
        weight = settings.budget.weight if self.router.trained_by_budget else 0.0
        self.budget = BudgetLoss(settings.budget.loss, weight, settings.budget.target)
        self.budget_in_flops = settings.budget.unit == "flops"
        self.knob = self.router.knob

    def _target_ratio(self, budget: BudgetSection) -> float:
        """Return the share of patches on the big branch that meets the budget."""
        if budget.unit == "ratio":
            return budget.target
        floor = self.cheapest_flops / self.dense_flops
        if budget.target <= floor:
            raise InputError(
                f"model.router.budget.target {budget.target:g} is out of reach: with nothing routed this model costs "
                f"{floor:.3f} of full_compute already (valid: {floor:.3f} < target <= 1)"
            )
        return (budget.target - floor) / (1 - floor)

    def decide(self, scores_BN: Tensor) -> RoutingDecision:
        """Ask the router."""
        return self.router.decide(scores_BN)

    def loss_terms(self) -> tuple[str, ...]:
        """The task's, and the budget's where it has a weight."""
        return ("task", "budget") if self.budget.weight > 0 else ("task",)

    def alternation(self) -> dict[str, tuple[str, ...]]:
        """First what looks at patches, then what chooses among them."""
        return {"branches": ("big", "small", "head"), "routing": ("encoder", "attention", "router")}

    def nominal_ratio(self) -> float:
        """The budget's."""
        return self.target_ratio

    def _output(self, pooled_BD: Tensor, decision: RoutingDecision) -> ModelOutput:
        output = super()._output(pooled_BD, decision)
        output.routing_ratio = output.units_executed["big"] / self.grid.num_patches
        if not self.training and isinstance(getattr(self.router, "threshold", None), nn.Parameter):
            output.metrics["threshold"] = float(self.router.threshold)
        if self.training and self.budget.weight > 0:
            rate = decision.rate()
            output.losses["budget"] = self.budget(self._cost_share(rate) if self.budget_in_flops else rate)
        return output

    def _cost_share(self, rate: Tensor) -> Tensor:
        return (self.cheapest_flops + rate * (self.dense_flops - self.cheapest_flops)) / self.dense_flops

    @property
    def default_knob_value(self) -> float:
        """Threshold or share as trained."""
        return self.router.default_knob_value

    def knob_values(self, images: Sequence[Tensor]) -> list[KnobValue]:
        """Return knob values spread over routing ratios, chosen on the scores of these images."""
        return list(self.router.knob_values(torch.cat([self.encode(batch).scores_BN for batch in images])))

    def along_knob(self, images: Tensor, values: Sequence[KnobValue]) -> Iterator[ModelOutput]:
        """Yield one output per value; the scores are computed once."""
        encoded = self.encode(images)
        for value in values:
            yield self.dispatch(encoded, self.router.at_knob(encoded.scores_BN, float(value)))

    def set_knob(self, value: KnobValue) -> None:
        """Make ``value`` the default."""
        self.router.set_knob(float(value))


class UniformModel(PatchModel):
    """Base of the baselines that send every patch through the one branch they have."""

    def decide(self, scores_BN: Tensor) -> RoutingDecision:
        """The same branch for all."""
        hard_BN = torch.full_like(scores_BN, self.branches == ("big",), dtype=torch.bool)
        return RoutingDecision(hard_BN, hard_BN.to(scores_BN.dtype))

    def nominal_ratio(self) -> float:
        """All or nothing."""
        return float(self.branches == ("big",))

    def dispatch(self, encoded: Encoded, decision: RoutingDecision) -> ModelOutput:
        """Run all patches as one batch: nothing is conditional, in training or after."""
        pixels = encoded.patches.reshape(-1, self.patch_values)
        return self._output(self._pool(self.expert(self.branches[0])(pixels), encoded.scores_BN), decision)

    counterfactual = dispatch


class FullCompute(UniformModel):
    """Every patch through the big MLP, weighted by the scores."""

    branches = ("big",)


class CheapCompute(UniformModel):
    """Every patch through the small MLP, weighted by the scores."""

    branches = ("small",)


class NoRouting(UniformModel):
    """Every patch through the big MLP, averaged: without scores neither encoder nor attention head is paid for."""

    branches = ("big",)
    has_scores = False

    def encode(self, images: Tensor) -> Encoded:
        """Cut the image; every score is zero."""
        return Encoded(images.new_zeros(len(images), self.grid.num_patches), self.grid.view(images))
