"""Attention of any model here that has some, in one shape: layers of maps over a grid of patches.

Shapes: B images, H heads, Q queries (rows), T tokens attended to, N patches of the layer's grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from routing.errors import InputError
from routing.models.base import VisionModel
from routing.models.patch.model import PatchModel
from routing.models.vit.classifier import TransformerClassifier
from routing.models.vit.token_pruning import Pruning, pruned_by


@dataclass(frozen=True)
class AttentionLayer:
    """One layer's attention on a batch.

    maps: (B, H, Q, T), rows sum to 1. grid: patches (rows, columns). has_cls: row and column 0 belong to CLS.
    kept: (B, T) which token of the grid (CLS counted) each column is, after pruning; None where all are there.
    """

    name: str
    maps: Tensor
    grid: tuple[int, int]
    has_cls: bool
    kept: Tensor | None = None

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def reader_BHT(self) -> Tensor:
        """Return the row that decides: that of CLS, or else the mean over all queries."""
        return self.maps[:, :, 0] if self.has_cls else self.maps.mean(dim=2)

    def patches_BHN(self) -> Tensor:
        """Return the reader's attention to patches, summing to 1; dropped patches get 0."""
        row = self.reader_BHT()[:, :, int(self.has_cls) :]
        row = row / row.sum(dim=2, keepdim=True).clamp(min=1e-12)
        if self.kept is None:
            return row
        index = (self.kept[:, 1:] - 1)[:, None].expand_as(row)
        return row.new_zeros(*row.shape[:2], self.num_patches).scatter(2, index, row)


@torch.no_grad()
def read_attention(model: VisionModel, images: Tensor, pruning: Pruning | None = None) -> list[AttentionLayer]:
    """Return the attention of every layer on normalised images (B, C, S, S).

    Args:
        pruning: for transformers, read under this setting instead of on all tokens.

    Raises:
        InputError: the model has no attention.
    """
    if isinstance(model, TransformerClassifier):
        return _of_transformer(model, images, pruning)
    if isinstance(model, PatchModel) and model.has_scores:
        scores_BN = model.encode(images).scores_BN.float()
        maps = scores_BN.softmax(dim=1)[:, None, None]
        return [AttentionLayer("patch scores", maps, (model.grid.grid, model.grid.grid), has_cls=False)]
    found = model.attention_maps(images).items()
    return [AttentionLayer(name, maps, _square(maps.shape[3]), has_cls=False) for name, maps in found]


def _of_transformer(model: TransformerClassifier, images: Tensor, pruning: Pruning | None) -> list[AttentionLayer]:
    host = model.host
    with pruned_by(model.core, pruning) as record:
        maps = model.attention_maps(images)
    layers = []
    for index, (name, layer) in enumerate(maps.items()):
        kept = record.kept if pruning is not None and index >= pruning.start_layer else None
        if layer.shape[3] != host.num_tokens and kept is None:
            raise InputError("merged tokens have no place in the image: attention under 'merge' cannot be drawn")
        layers.append(AttentionLayer(name, layer, host.grid, has_cls=True, kept=kept))
    return layers


def _square(count: int) -> tuple[int, int]:
    side = math.isqrt(count)
    return (side, side) if side * side == count else (1, count)
