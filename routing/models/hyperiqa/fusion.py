"""Fusion: features of several stages, pooled to one grid, become one map.

    features[s] (B, C_s, P, P)  ->  fused (B, sum of C_s, P, P),  weights (B, S)

A fusion may be given the first K of its S scales only: the channels of the others are zero and their weights 0.
Shapes: B batch, S scales, C_s channels of scale s, P side of the pooled grid, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.models.hyperiqa.section import FusionSection


class Fusion(nn.Module, ABC):
    """Base: weighs every scale by ``weigh`` and concatenates them.

    Args:
        channels: C_s of every scale, first (finest) to last.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)

    @classmethod
    def of(cls, section: FusionSection, channels: Sequence[int]) -> Fusion:
        """Return the fusion of a configuration, whose keys are there for every fusion, for scales of these widths."""
        return cls(channels)

    @property
    def width(self) -> int:
        """Channels of the fused map."""
        return sum(self.channels)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the fused map (B, C, P, P) and the weight of every scale (B, S)."""
        weighted, weights_BK = self.weigh(features)
        fused = torch.cat(weighted, dim=1)
        missing = len(self.channels) - len(features)
        fused = F.pad(fused, (0, 0, 0, 0, 0, self.width - fused.shape[1]))
        return fused, F.pad(weights_BK, (0, missing))

    @abstractmethod
    def weigh(self, features: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        """Return the weighted maps of the K scales given and their weights (B, K)."""

    def multiply_adds(self, kept: int, pool: int) -> int:
        """Return the closed form for one image of which ``kept`` scales are there, pooled to ``pool`` cells a side."""
        return 0


class Concat(Fusion):
    """Every scale as it is: weight 1 each."""

    def weigh(self, features: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        """Return the features themselves."""
        return features, features[0].new_ones(len(features[0]), len(features))


class Single(Concat):
    """The one scale it is given."""


class Uniform(Fusion):
    """Every scale with the same weight, 1 / K, like an untrained ``attention``."""

    def weigh(self, features: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        """Return the features by 1 / K."""
        count = len(features)
        weights_BK = features[0].new_full((len(features[0]), count), 1 / count)
        return [feature / count for feature in features], weights_BK


class Attention(Fusion):
    """One weight per image and scale: softmax(Linear(Dropout(ReLU(Linear(mean of the last scale))))).

    The mean of a last scale that is not there counts as zero; the weights of the scales given always sum to 1.
    """

    def __init__(self, channels: Sequence[int], hidden: int, dropout: float) -> None:
        super().__init__(channels)
        self.hidden = hidden
        self.score = nn.Sequential(
            nn.Linear(self.channels[-1], hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, len(self.channels))
        )

    @classmethod
    def of(cls, section: FusionSection, channels: Sequence[int]) -> Fusion:
        """Return it with the hidden width and the dropout of the configuration."""
        return cls(channels, section.hidden, section.dropout)

    def weigh(self, features: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        """Return every scale by its weight."""
        if len(features) == len(self.channels):
            summary_BC = features[-1].mean(dim=(2, 3))
        else:
            summary_BC = features[0].new_zeros(len(features[0]), self.channels[-1])
        weights_BK = self.score(summary_BC)[:, : len(features)].softmax(dim=1)
        return [f * w.view(-1, 1, 1, 1) for f, w in zip(features, weights_BK.unbind(1), strict=True)], weights_BK

    def multiply_adds(self, kept: int, pool: int) -> int:
        """Both linear layers, independent of the stages kept."""
        return self.hidden * (self.channels[-1] + len(self.channels))


class Spatial(Fusion):
    """One sigmoid map per scale: conv 1x1 (C to C/4), ReLU, conv 1x1 (to 1). Its weight is the mean of the map."""

    REDUCTION = 4

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels)
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, self._reduced(c), 1), nn.ReLU(), nn.Conv2d(self._reduced(c), 1, 1), nn.Sigmoid())
            for c in self.channels
        )

    def _reduced(self, channels: int) -> int:
        return max(1, channels // self.REDUCTION)

    def weigh(self, features: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        """Return every scale by its map."""
        maps = [gate(feature) for gate, feature in zip(self.gates, features, strict=False)]
        weights_BK = torch.stack([gate.mean(dim=(1, 2, 3)) for gate in maps], dim=1)
        return [feature * gate for feature, gate in zip(features, maps, strict=True)], weights_BK

    def multiply_adds(self, kept: int, pool: int) -> int:
        """Both convolutions of every scale that is there."""
        return pool**2 * sum(self._reduced(c) * (c + 1) for c in self.channels[:kept])


class CrossScale(Fusion):
    """Multi-head attention among the scales, in every cell of the grid apart, added to what each scale has.

    The weight of a scale is the attention it receives, averaged over asking scales, heads and cells: they sum to 1.
    """

    def __init__(self, channels: Sequence[int], width: int, heads: int) -> None:
        super().__init__(channels)
        self.heads, self.inner = heads, width
        self.into = nn.ModuleList(nn.Linear(c, width) for c in self.channels)
        self.qkv = nn.Linear(width, 3 * width)
        self.out_of = nn.ModuleList(nn.Linear(width, c) for c in self.channels)

    @classmethod
    def of(cls, section: FusionSection, channels: Sequence[int]) -> Fusion:
        """Return it with the width and the heads of the configuration."""
        return cls(channels, section.width, section.heads)

    def weigh(self, features: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        """Return every scale plus what it read from the others."""
        batch_size, _, pool, _ = features[0].shape
        count = len(features)
        cells = [feature.flatten(2).transpose(1, 2) for feature in features]  # (B, P*P, C_s)
        tokens = torch.stack([into(cell) for into, cell in zip(self.into, cells, strict=False)], dim=2)
        split = self.qkv(tokens).view(batch_size, pool**2, count, 3, self.heads, -1)
        queries, keys, values = split.permute(3, 0, 1, 4, 2, 5).unbind(0)  # each (B, P*P, H, K, D/H)
        attention = (queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5).softmax(dim=-1)
        read = (attention @ values).transpose(2, 3).flatten(3)  # (B, P*P, K, D)
        changes = [out_of(part) for out_of, part in zip(self.out_of, read.unbind(2), strict=False)]
        maps = [(cell + change).transpose(1, 2) for cell, change in zip(cells, changes, strict=True)]
        return [m.reshape(batch_size, -1, pool, pool) for m in maps], attention.mean(dim=(1, 2, 3))

    def multiply_adds(self, kept: int, pool: int) -> int:
        """Linear layers in and out, queries, keys and values, and the attention among the kept scales."""
        linear = 2 * sum(self.channels[:kept]) * self.inner + 3 * kept * self.inner**2
        return pool**2 * (linear + 2 * kept**2 * self.inner)
