"""A classifier as a chain of stages: what it costs to get this far, and what leaves each stage.

Shapes: B batch, C channels, S side of a map, T tokens (a class token is token 0), D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from routing.models.base import CountedPart


@dataclass(frozen=True)
class Stage:
    """One link of a chain.

    module: (B, *shape_in) -> (B, *shape_out). multiply_adds: closed form of one image.
    """

    module: nn.Module
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    multiply_adds: int

    def counted(self, static_units: int | None = 1) -> CountedPart:
        """Return the stage as the compute ledger takes it."""
        return CountedPart(self.module, (torch.zeros(1, *self.shape_in),), self.multiply_adds, static_units)


@dataclass(frozen=True)
class Chain:
    """The stages of a classifier in order and its head; the first takes images as ``entry`` leaves them.

    Features between stages are maps (C, S, S) or tokens (T, D).
    """

    stages: tuple[Stage, ...]
    head: Stage

    def counted_parts(self) -> dict[str, CountedPart]:
        """Return every stage and the head, each once per image."""
        parts = {f"stage{index}": stage.counted() for index, stage in enumerate(self.stages, start=1)}
        return parts | {"head": self.head.counted()}

    def multiply_adds(self) -> int:
        """Return the closed form of one image."""
        return total(self.stages) + self.head.multiply_adds


def total(stages: Iterable[Stage]) -> int:
    """Return the multiply-adds of these stages."""
    return sum(stage.multiply_adds for stage in stages)


class ChainHead(nn.Module):
    """A classifier on the features of any stage: maps are pooled, of tokens the class token is normed; then linear.

    Args:
        shape: (C, S, S) or (T, D).
        num_outputs: classes.
        pool: ``max`` or ``mean`` over the positions of a map.
        hidden: width of a Linear-GELU before the last layer; 0 is none.
    """

    def __init__(self, shape: tuple[int, ...], num_outputs: int, pool: str = "max", hidden: int = 0) -> None:
        super().__init__()
        self.shape, self.pool = shape, pool
        width = shape[0] if len(shape) == 3 else shape[1]
        self.norm = nn.Identity() if len(shape) == 3 else nn.LayerNorm(width, eps=1e-6)
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.GELU()) if hidden else nn.Identity()
        self.linear = nn.Linear(hidden or width, num_outputs)
        self.multiply_adds = width * hidden + (hidden or width) * num_outputs

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        if len(self.shape) == 3:
            vector = features.amax(dim=(2, 3)) if self.pool == "max" else features.mean(dim=(2, 3))
        else:
            vector = features[:, 0]
        logits: Tensor = self.linear(self.hidden(self.norm(vector)))
        return logits

    def stage(self) -> Stage:
        """Return it as the last link of a chain."""
        return Stage(self, self.shape, (self.linear.out_features,), self.multiply_adds)
