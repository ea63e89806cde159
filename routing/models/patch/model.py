"""What routed model and baselines share: encoder, scores, experts on cropped patches, aggregator, head.

Inference is truly conditional: routed patches are gathered by flat index, run through their MLP, and added straight
into the pooled output; the big MLP never sees an unrouted patch.

Shapes: B batch, N = g * g patches, K routed patches of the whole batch, P values per cropped patch, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor, nn

from routing.config.registry import AGGREGATORS
from routing.data import DataInfo
from routing.models.base import CountedPart, Formula, ModelOutput
from routing.models.grid import PatchGrid
from routing.models.patch.aggregators import Aggregator
from routing.models.patch.parts import AttentionHead, Encoded, LightEncoder, mlp, mlp_multiply_adds
from routing.models.patch.section import PatchSection
from routing.models.units import RoutedModel, RoutingDecision, rows_of

BRANCHES = ("big", "small")


class PatchModel(RoutedModel[Encoded]):
    """Base of all patch models; a subclass chooses the branch of every patch.

    ``dense_flops`` are those of full_compute, ``cheapest_flops`` those with nothing routed. ``rows_are_independent``
    says that what an expert makes of a patch in training does not depend on the other patches it is given.

    Args:
        branches: the experts that are built; patches of a missing one are skipped.
        has_scores: without scores neither encoder nor attention head is built, and every score is zero.
    """

    dense_flops: float
    rows_are_independent = True

    def __init__(
        self,
        section: PatchSection,
        info: DataInfo,
        *,
        branches: tuple[str, ...] = BRANCHES,
        has_scores: bool = True,
    ) -> None:
        super().__init__()
        self.branches, self.has_scores = branches, has_scores
        self.grid = PatchGrid(info.input_size, info.patch_grid_size, info.patch_margin)
        self.image_shape = (info.channels, info.input_size, info.input_size)
        self.patch_values = info.channels * self.grid.side**2
        self.width, self.num_outputs = section.experts.width, info.num_outputs
        if has_scores:
            settings = section.encoder
            self.encoder = LightEncoder(info.channels, settings.channels, settings.pool, self.grid)
            self.attention = AttentionHead(settings.channels)
        self.build_branches(section)
        self.aggregator: Aggregator = AGGREGATORS.get(section.aggregator)(self.width)
        self.head = nn.Linear(self.width, info.num_outputs)
        self.cheapest_flops, self.dense_flops = self.flops_at(0.0), self.flops_at(1.0)

    def build_branches(self, section: PatchSection) -> None:
        """Build the experts that this model has."""
        self.hidden = {"big": section.experts.big, "small": section.experts.small}
        for branch in self.branches:
            setattr(self, branch, mlp(self.patch_values, self.hidden[branch], self.width))

    def encode(self, images: Tensor, **facts: Tensor) -> Encoded:
        """Score every patch and cut the original image into (not yet copied) patches."""
        if self.has_scores:
            scores_BN = self.attention(self.encoder(images))
        else:
            scores_BN = images.new_zeros(len(images), self.grid.num_patches)
        return Encoded(scores_BN, self.grid.view(images), facts)

    @property
    def routed(self) -> RoutedModel[Encoded] | None:
        """The model itself, where it has scores."""
        return self if self.has_scores else None

    @property
    def skips_unrouted(self) -> bool:
        """Whether a patch that is not routed is not looked at: there is no branch for it."""
        return "small" not in self.branches

    def dispatch(self, encoded: Encoded, decision: RoutingDecision) -> ModelOutput:
        """Run each patch through its branch only, adding features straight into the pooled output.

        An exporter traces this very code: there, where no branch can depend on a count, an empty selection is run.
        """
        taken = dict(zip(BRANCHES, rows_of(decision.hard_BN.flatten(), decision.num_hard), strict=True))
        scores_BN = encoded.scores_BN
        if self.skips_unrouted:
            scores_BN = scores_BN.masked_fill(~decision.hard_BN, -torch.inf)  # the rest is skipped
        pool = _Pool(self.aggregator, scores_BN, self.width)
        for branch in self.branches:
            rows = taken[branch]
            if torch.compiler.is_compiling() or len(rows):
                pool.add(rows, self.expert(branch)(self.rows_of(encoded, rows)))
        return self.output(pool.result(), decision)

    def rows_of(self, encoded: Encoded, rows: Tensor) -> Tensor:
        """Return the patches ``rows`` (K,), flat indices b * N + n, flattened: (K, C * P * P).

        Where two branches need every patch between them, one strided copy of all and ``index_select`` is two to four
        times faster than two strided gathers; where the rest is not looked at, only the rows are copied.
        """
        if self.skips_unrouted:
            return self.grid.crop(encoded.patches, rows)
        return encoded.pixels.index_select(0, rows)

    def expert(self, branch: str) -> nn.Module:
        """Return the expert of a branch."""
        module = getattr(self, branch)
        assert isinstance(module, nn.Module)
        return module

    def pool(self, features: Tensor, scores_BN: Tensor) -> Tensor:
        """Aggregate the features (B * N, D) of all patches to (B, D)."""
        pooled: Tensor = self.aggregator(features.view(*scores_BN.shape, -1), scores_BN)
        return pooled

    def output(self, pooled_BD: Tensor, decision: RoutingDecision) -> ModelOutput:
        """Predict from the pooled features; the output also holds the units executed."""
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

    def expensive_multiply_adds(self) -> int:
        """Return the closed form of the big branch for one patch."""
        return self.branch_multiply_adds("big")

    def counted_parts(self) -> dict[str, CountedPart]:
        """Encoder and scores once per image, experts per patch, weighted sum and head once."""
        return self._counted_parts

    @cached_property
    def _counted_parts(self) -> dict[str, CountedPart]:
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
        parts["aggregator"] = CountedPart(self.aggregator, sum_inputs, self.aggregator.multiply_adds(n))
        parts["head"] = CountedPart(self.head, (torch.zeros(1, self.width),), self.width * self.num_outputs)
        return parts

    def handles(self) -> dict[str, Formula]:
        """The weighted sum of ``_Pool``: one multiply-add per value; a patch that is skipped has weight 0 in it."""
        skips = self.branches == ("big",)
        return {
            "aten::index_add_": lambda inputs, _: (
                inputs[0].numel() * self.grid.num_patches if skips else inputs[3].numel()
            )
        }

    def flops_at(self, ratio: float) -> float:
        """Return multiply-adds per image when this share of patches takes the big branch, the rest the small one."""
        n = self.grid.num_patches
        static = sum(part.per_unit for part in self.counted_parts().values() if part.static_units is not None)
        big, small = (self.branch_multiply_adds(branch) for branch in BRANCHES)
        return static + n * (ratio * big + (1 - ratio) * (0 if self.skips_unrouted else small))

    @abstractmethod
    def nominal_ratio(self) -> float:
        """Return the share of patches expected on the big branch before training."""

    def nominal_units(self) -> dict[str, float]:
        """Return expected patches per branch."""
        n, ratio = self.grid.num_patches, self.nominal_ratio()
        units = {"big": n * ratio, "small": n * (1 - ratio)}
        return {branch: units[branch] for branch in self.branches}


class _Pool:
    """Collects the features of routed patches; where the weights are known beforehand, as one running sum."""

    def __init__(self, aggregator: Aggregator, scores_BN: Tensor, width: int) -> None:
        self.aggregator, self.scores_BN, self.width = aggregator, scores_BN, width
        self.weights_BN = aggregator.weights(scores_BN)
        batch_size, num_patches = scores_BN.shape
        count = batch_size * num_patches if self.weights_BN is None else batch_size
        self.total = scores_BN.new_zeros(count, width)

    def add(self, rows: Tensor, features_KD: Tensor) -> None:
        """Take the features of the patches ``rows`` (K,), flat indices b * N + n."""
        if self.weights_BN is None:
            self.total.index_copy_(0, rows, features_KD.to(self.total.dtype))
            return
        weighted_KD = features_KD * self.weights_BN.flatten().index_select(0, rows).unsqueeze(1)
        images = torch.div(rows, self.scores_BN.shape[1], rounding_mode="floor")
        self.total.index_add_(0, images, weighted_KD.to(self.total.dtype))

    def result(self) -> Tensor:
        """Return the pooled features (B, D)."""
        if self.weights_BN is not None:
            return self.total
        pooled: Tensor = self.aggregator(self.total.view(*self.scores_BN.shape, -1), self.scores_BN)
        return pooled
