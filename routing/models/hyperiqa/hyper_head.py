"""The head of HyperIQA: a hyper-network that writes a small quality network for every image (CVPR 2020, section 3).

Source: Su et al., "Blindly assess image quality in the wild guided by a self-adaptive hyper network", and its code.
Shapes: B batch, C channels, P side of the grid, D_l widths of the target network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TargetNetwork:
    """One small network per image: ``weights[l]`` (B, D_l+1, D_l) and ``biases[l]`` (B, D_l+1); the last D is 1."""

    weights: list[Tensor]
    biases: list[Tensor]

    def __call__(self, content_BD: Tensor) -> Tensor:
        """Return the quality (B,) of every image from its content vector, each by its own network."""
        values = content_BD.unsqueeze(2)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = weight @ values + bias.unsqueeze(2)
            if index < len(self.weights) - 1:
                values = values.sigmoid()
        return values.flatten()


class HyperHead(nn.Module):
    """Fused map (B, C, P, P) -> quality (B,).

    A weight matrix of the target network is a 3x3 convolution of the (reduced) map, read cell by cell; its biases, and
    the weights of its last layer, are linear in the mean of that map.

    Args:
        reductions: channels between the fused map and those the hyper-network reads, a 1x1 convolution and ReLU each.
        own_content: the content vector is linear in the mean of the fused map; False: ``forward`` is given it.
    """

    def __init__(
        self,
        channels: int,
        pool: int,
        hyper_channels: int,
        target_widths: Sequence[int],
        reductions: Sequence[int] = (),
        *,
        own_content: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.pool, self.hyper_channels = channels, pool, hyper_channels
        self.target_widths, self.own_content = tuple(target_widths), own_content
        self.reduced_widths = (channels, *reductions, hyper_channels)
        steps = ((nn.Conv2d(before, after, 1), nn.ReLU()) for before, after in pairwise(self.reduced_widths))
        self.reduce = nn.Sequential(*(layer for step in steps for layer in step))
        if own_content:
            self.content = nn.Linear(channels, self.target_widths[0])
        self.hidden_weights = nn.ModuleList(
            nn.Conv2d(hyper_channels, before * after // pool**2, 3, padding=1)
            for before, after in pairwise(self.target_widths)
        )
        self.last_weight = nn.Linear(hyper_channels, self.target_widths[-1])
        self.biases = nn.ModuleList(nn.Linear(hyper_channels, width) for width in (*self.target_widths[1:], 1))

    def target(self, fused: Tensor) -> TargetNetwork:
        """Return the network of every image."""
        hyper = self.reduce(fused)
        mean_BC = hyper.mean(dim=(2, 3))
        weights = [
            layer(hyper).reshape(-1, after, before)
            for layer, (before, after) in zip(self.hidden_weights, pairwise(self.target_widths), strict=True)
        ]
        weights.append(self.last_weight(mean_BC).unsqueeze(1))
        return TargetNetwork(weights, [layer(mean_BC) for layer in self.biases])

    def forward(self, fused: Tensor, content_BD: Tensor | None = None) -> Tensor:
        """Return the quality of every image (B,)."""
        return self.target(fused)(self.content(fused.mean(dim=(2, 3))) if content_BD is None else content_BD)

    def multiply_adds(self) -> int:
        """Return the closed form of one image: writing the target network, and running it."""
        cells, hyper, widths = self.pool**2, self.hyper_channels, self.target_widths
        matrices = sum(before * after for before, after in pairwise(widths))
        reduced = sum(before * after for before, after in pairwise(self.reduced_widths))
        written = cells * reduced + 9 * hyper * matrices + hyper * (widths[-1] + sum(widths[1:]) + 1)
        return written + self.own_content * self.channels * widths[0] + matrices + widths[-1]


class LocalDistortion(nn.Module):
    """Features of one stage (B, C, H, W) -> its piece of the content vector (B, D): HyperIQA's module of that name.

    A 1x1 convolution to fewer channels, pooled to a coarse grid, then linear; the last stage has neither convolution
    nor grid (``reduced`` None). The piece of a stage that is not run is zero.
    """

    def __init__(self, channels: int, reduced: int | None, grid: int, width: int) -> None:
        super().__init__()
        self.channels, self.reduced, self.grid, self.width = channels, reduced, grid, width
        self.reduce = nn.Identity() if reduced is None else nn.Conv2d(channels, reduced, 1, bias=False)
        self.content = nn.Linear((reduced or channels) * grid**2, width)

    def forward(self, features: Tensor) -> Tensor:
        """Return the piece."""
        piece: Tensor = self.content(F.adaptive_avg_pool2d(self.reduce(features), self.grid).flatten(1))
        return piece

    def multiply_adds(self, side: int) -> int:
        """Return the closed form of one map of ``side`` x ``side``."""
        mixing = 0 if self.reduced is None else side**2 * self.channels * self.reduced
        return mixing + self.content.in_features * self.width


CONTENT_OF_STAGE = 16
"""Width of the content vector's piece of every stage but the last, which has the rest."""


def local_distortion(channels: Sequence[int], width: int) -> nn.ModuleList:
    """Return a module per stage whose pieces are ``width`` together: 16 channels on 8 x 8 cells, 32 on 4 x 4, ..."""
    last = len(channels) - 1
    stages = [LocalDistortion(c, 16 * 2**i, max(1, 8 >> i), CONTENT_OF_STAGE) for i, c in enumerate(channels[:last])]
    return nn.ModuleList([*stages, LocalDistortion(channels[last], None, 1, width - last * CONTENT_OF_STAGE)])
