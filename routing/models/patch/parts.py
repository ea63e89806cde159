"""The pieces patch models are made of: light encoder, attention head, experts, and what is computed once per image.

Shapes: B batch, N = g * g patches, E encoder channels, P side of a cropped patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.grid import PatchGrid
from routing.models.units import Scored


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
        features = self.layers(average_pool(images, self.pool))
        if features.shape[-1] != self.grid:
            features = F.adaptive_avg_pool2d(features, self.grid)
        return features.flatten(2).transpose(1, 2)


def average_pool(images: Tensor, pool: int) -> Tensor:
    """Return ``F.avg_pool2d(images, pool)``, bit for bit.

    On a CPU the sum of strided slices is three times faster for pool 2, slower from 3 on.
    """
    if images.device.type != "cpu" or pool > 2:
        return F.avg_pool2d(images, pool)
    height, width = (size // pool * pool for size in images.shape[-2:])
    total, *others = (images[..., i:height:pool, j:width:pool] for i in range(pool) for j in range(pool))
    for slice_ in others:
        total = total + slice_
    return total / pool**2


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
        layers += [nn.Linear(a, b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def mlp_multiply_adds(width_in: int, hidden: Sequence[int], width_out: int) -> int:
    """Return the multiply-adds of ``mlp`` for one row."""
    return sum(a * b for a, b in pairwise([width_in, *hidden, width_out]))


@dataclass
class Encoded(Scored):
    """Results computed once per image, independent of the decision: the only input of a router.

    patches: view (B, g, g, C, P, P) of the cropped patches.
    facts: annotations beside the pixels for routers that need them, such as ``box`` (B, 4).
    """

    patches: Tensor
    facts: dict[str, Tensor] = field(default_factory=dict)
    _pixels: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def pixels(self) -> Tensor:
        """Every patch, flattened and copied once: (B * N, C * P * P)."""
        if self._pixels is None:  # functools.cached_property holds a lock, which no exporter can trace
            batch_size, g, *_ = self.patches.shape
            self._pixels = self.patches.reshape(batch_size * g * g, -1)
        return self._pixels
