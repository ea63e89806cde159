"""Attention of any model that has some, layer by layer, on the CPU.

Shapes: B images, H heads, Q queries (rows), T tokens attended to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from routing.models.attention import AttentionLayer
from routing.models.base import VisionModel
from routing.models.vit.token_pruning import Pruning


@torch.no_grad()
def read_attention(model: VisionModel, images: Tensor, pruning: Pruning | None = None) -> list[AttentionLayer]:
    """Return the attention that the prediction reads, layer by layer, on normalised images (B, C, S, S).

    Args:
        pruning: for transformers, read under this setting instead of on all tokens.

    Raises:
        InputError: the model has no attention.
    """
    images = images.to(next(model.parameters()).device)
    prunable = model.prunable
    layers = model.attention_layers(images) if prunable is None else prunable.attention_layers(images, pruning)
    return [layer.cpu() for layer in layers]


@torch.no_grad()
def read_inner_attention(model: VisionModel, images: Tensor) -> list[AttentionLayer]:
    """Return attention that only forms the one ``read_attention`` gives, by its own names; most models have none.

    An ``aacn`` pools features and keeps positions by a map per stage; self-attention mixes positions before that.
    """
    maps = model.inner_attention_maps(images.to(next(model.parameters()).device))
    return [AttentionLayer.on_a_square(name, values).cpu() for name, values in maps.items()]
