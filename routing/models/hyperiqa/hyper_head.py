"""The head of HyperIQA: a hyper-network that writes a small quality network for every image (CVPR 2020, section 3).

Shapes: B batch, C channels, P side of the grid, D_l widths of the target network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    the weights of its last layer, are linear in the mean of that map. The content vector is linear in the mean of the
    fused map.
    """

    def __init__(self, channels: int, pool: int, hyper_channels: int, target_widths: Sequence[int]) -> None:
        super().__init__()
        self.channels, self.pool, self.hyper_channels = channels, pool, hyper_channels
        self.target_widths = tuple(target_widths)
        self.reduce = nn.Sequential(nn.Conv2d(channels, hyper_channels, 1), nn.ReLU())
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

    def forward(self, fused: Tensor) -> Tensor:
        """Return the quality of every image (B,)."""
        return self.target(fused)(self.content(fused.mean(dim=(2, 3))))

    def multiply_adds(self) -> int:
        """Return the closed form of one image: writing the target network, and running it."""
        cells, hyper, widths = self.pool**2, self.hyper_channels, self.target_widths
        matrices = sum(before * after for before, after in pairwise(widths))
        written = cells * self.channels * hyper + 9 * hyper * matrices + hyper * (widths[-1] + sum(widths[1:]) + 1)
        return written + self.channels * widths[0] + matrices + widths[-1]
