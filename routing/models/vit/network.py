"""Vision transformer (arXiv:2010.11929), pre-norm, with a CLS token; attention runs in PyTorch's fused SDPA.

    image -> patches -> linear + CLS + position -> blocks (attention, MLP) -> norm -> head on CLS

Attention of any layer and head is not stored here: ``attention_maps.attention_maps`` computes it on request.

Shapes: B images, T tokens (CLS is token 0), D width, H heads, E = D / H, M hidden width of the MLP.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.attention import SelfAttention


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads, dropout)
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp, width), nn.Dropout(dropout)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BTD: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Return tokens (B, T, D)."""
        tokens_BTD = tokens_BTD + self.dropout(self.attention(self.norm_1(tokens_BTD), attn_mask))
        out: Tensor = tokens_BTD + self.mlp(self.norm_2(tokens_BTD))
        return out


class PatchEmbedding(nn.Module):
    """Patches as tokens: (B, C, S, S) -> (B, (S / P)^2, D)."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens, row by row."""
        return self.project(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """The network alone: images in, logits out; it knows no configuration and no pruning.

    Args:
        image_size, patch_size: pixels per side.
        channels: of the image.
        width, heads, depth, mlp: D, H, number of blocks, M.
        dropout: after embedding, attention and MLP, and on attention weights, in training.
        num_outputs: classes.

    Raises:
        InputError: the patch does not divide the image, or the heads do not divide the width.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        channels: int,
        width: int,
        heads: int,
        depth: int,
        mlp: int,
        num_outputs: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            valid = [size for size in range(2, image_size + 1) if image_size % size == 0]
            raise InputError(
                f"model.patch_size {patch_size} does not divide the image size {image_size} "
                f"(valid: {', '.join(map(str, valid))})"
            )
        if width % heads:
            valid = [count for count in range(1, width + 1) if width % count == 0]
            raise InputError(
                f"model.heads {heads} does not divide model.width {width} (valid: {', '.join(map(str, valid))})"
            )
        self.image_size, self.patch_size, self.num_outputs = image_size, patch_size, num_outputs
        self.grid = image_size // patch_size
        self.num_tokens = 1 + self.grid**2
        self.embedding = PatchEmbedding(channels, patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, self.num_tokens, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, mlp, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_outputs)
        self._initialise()

    def _initialise(self) -> None:
        for parameter in (self.positions, self.cls_token):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, T, D) that enter the first block."""
        patches_BND = self.embedding(images)
        tokens_BTD = torch.cat(
            [self.cls_token.expand(images.shape[0], -1, -1).to(patches_BND.dtype), patches_BND], dim=1
        )
        embedded: Tensor = self.dropout(tokens_BTD + self.positions)
        return embedded

    def forward(self, images: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Return logits (B, classes)."""
        tokens_BTD = self.embed(images)
        for block in self.blocks:
            tokens_BTD = block(tokens_BTD, attn_mask)
        return self.classify(tokens_BTD)

    def classify(self, tokens_BTD: Tensor) -> Tensor:
        """Return logits (B, classes) from what leaves the last block."""
        logits: Tensor = self.head(self.norm(tokens_BTD[:, 0]))
        return logits
