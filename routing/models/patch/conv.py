"""``routed_conv``: a cheap conv trunk sees every patch, a conv expert the cropped ones that the router sends there.

    image -> conv trunk -> feature and score per patch -> router -> small: linear on the trunk's feature
                                                                -> big: convs on the cropped patch, added to that
          -> sum weighted by the scores -> head

A row is what a branch is given of one patch: the trunk's feature (E), then the pixels (C * P * P).

Shapes: B batch, N = g * g patches, K rows, E trunk channels, P side of a cropped patch, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.data import DataInfo
from routing.errors import InputError
from routing.models.base import ModelOutput
from routing.models.patch.baselines import CheapCompute, FullCompute
from routing.models.patch.model import PatchModel
from routing.models.patch.parts import Encoded
from routing.models.patch.routed import AttentionRouting
from routing.models.patch.section import ConvExpertsSection, PatchSection
from routing.models.units import RoutingDecision


@dataclass
class TrunkEncoded(Encoded):
    """What is computed once per image; ``features_BNE`` is the trunk's feature of every patch."""

    features_BNE: Tensor | None = None

    @cached_property
    def pixels(self) -> Tensor:
        """The row of every patch, copied once: (B * N, E + C * P * P)."""
        assert self.features_BNE is not None
        batch_size, g, *_ = self.patches.shape
        pixels = self.patches.reshape(batch_size * g * g, -1)
        return torch.cat([self.features_BNE.flatten(0, 1).to(pixels.dtype), pixels], dim=1)


class TrunkExpert(nn.Module):
    """The small branch: a linear layer on the trunk's feature; the pixels are not used."""

    def __init__(self, trunk: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(trunk, width)
        self.multiply_adds = trunk * width

    def forward(self, rows: Tensor) -> Tensor:
        """Return features (K, D)."""
        features: Tensor = self.layer(rows[:, : self.layer.in_features])
        return features


class ConvExpert(nn.Module):
    """The big branch: convolutions on the cropped patch, each but the last followed by max pooling, then global max.

    Raises:
        InputError: more convolutions than the patch can be halved for.
    """

    def __init__(self, trunk: int, shape: tuple[int, int, int], settings: ConvExpertsSection) -> None:
        super().__init__()
        channels, side, _ = self.shape = shape
        self.trunk = TrunkExpert(trunk, settings.width)
        self.multiply_adds, layers = self.trunk.multiply_adds, nn.ModuleList()
        for index, width in enumerate(settings.channels):
            if side < 1:
                raise InputError(
                    f"model.experts.channels {list(settings.channels)}: a patch of {shape[1]} pixels cannot be halved "
                    f"{len(settings.channels) - 1} times (valid: at most {index} values; or a larger patch_margin)"
                )
            conv = nn.Conv2d(channels, width, settings.kernel, padding=settings.kernel // 2, bias=False)
            layers.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.GELU()))
            self.multiply_adds += side**2 * settings.kernel**2 * channels * width
            channels, side = width, side // 2
        self.layers, self.out = layers, nn.Linear(channels, settings.width)
        self.multiply_adds += channels * settings.width

    def forward(self, rows: Tensor) -> Tensor:
        """Return features (K, D)."""
        if not rows.shape[0]:  # batch norm has no statistics of nothing
            return rows.new_zeros(0, self.out.out_features)
        maps = rows[:, self.trunk.layer.in_features :].unflatten(1, self.shape)
        maps = maps.contiguous(memory_format=torch.channels_last)
        for index, layer in enumerate(self.layers):
            maps = layer(F.max_pool2d(maps, 2) if index else maps)
        features: Tensor = self.out(maps.amax(dim=(2, 3))) + self.trunk(rows)
        return features


class ConvPatches(PatchModel):
    """What routed_conv and its baselines share: rows with the trunk's feature, and conv experts."""

    rows_are_independent = False

    def build_branches(self, section: PatchSection) -> None:
        """A conv expert and a linear layer on the trunk."""
        settings = section.experts
        assert isinstance(settings, ConvExpertsSection)
        trunk, pixels = section.encoder.channels, self.patch_values
        self.patch_values = trunk + pixels
        shape = (self.image_shape[0], self.grid.side, self.grid.side)
        big, small = ConvExpert(trunk, shape, settings), TrunkExpert(trunk, settings.width)
        self.branch_costs = {"big": big.multiply_adds, "small": small.multiply_adds}
        built = {"big": big, "small": small}
        for branch in self.branches:
            setattr(self, branch, built[branch])

    def branch_multiply_adds(self, branch: str) -> int:
        """Return the closed form of one patch through a branch."""
        return self.branch_costs[branch]

    def encode(self, images: Tensor, **facts: Tensor) -> TrunkEncoded:
        """Run the trunk on the whole image and score every patch."""
        features_BNE = self.encoder(images)
        return TrunkEncoded(self.attention(features_BNE), self.grid.view(images), facts, features_BNE)

    def dispatch(self, encoded: Encoded, decision: RoutingDecision) -> ModelOutput:
        """Run each patch through its branch only; a traced graph runs both: no convolution there can run on nothing."""
        if not torch.compiler.is_compiling():
            return super().dispatch(encoded, decision)
        scores_BN, features = encoded.scores_BN, self.expert("big")(encoded.pixels)
        if self.skips_unrouted:
            scores_BN = scores_BN.masked_fill(~decision.hard_BN, -torch.inf)
        else:
            hard = decision.hard_BN.flatten().unsqueeze(1)
            features = torch.where(hard, features, self.expert("small")(encoded.pixels))
        return self.output(self.pool(features, scores_BN), decision)

    def rows_of(self, encoded: Encoded, rows: Tensor) -> Tensor:
        """Return the rows (K, E + C * P * P) of patches; where the rest is not looked at, only they are copied."""
        if not self.skips_unrouted:
            return encoded.pixels.index_select(0, rows)
        assert isinstance(encoded, TrunkEncoded)
        assert encoded.features_BNE is not None
        pixels = self.grid.crop(encoded.patches, rows)
        features_KE = encoded.features_BNE.flatten(0, 1).index_select(0, rows)
        return torch.cat([features_KE.to(pixels.dtype), pixels], dim=1)


class RoutedConv(ConvPatches, AttentionRouting):
    """Patch routing on a conv backbone: the routers, controls and budgets of attention_routing."""


class FullConv(ConvPatches, FullCompute):
    """Every patch through the conv expert."""

    def __init__(self, section: PatchSection, info: DataInfo) -> None:
        FullCompute.__init__(self, section, info)


class CheapConv(ConvPatches, CheapCompute):
    """Every patch through the trunk alone."""

    def __init__(self, section: PatchSection, info: DataInfo) -> None:
        CheapCompute.__init__(self, section, info)
