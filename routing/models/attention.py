"""Multi-head self-attention, the rows of it that a score is made of, and a layer of it as analysis sees it.

Shapes: B batch, H heads, T tokens, R rows, D width, E = D / H.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens_BTD: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Attend; ``attn_mask`` as in ``scaled_dot_product_attention``: bool True attends, floats are added."""
        batch, count, width = tokens_BTD.shape
        qkv = self.in_proj(tokens_BTD).view(batch, count, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=attn_mask, dropout_p=self.dropout if self.training else 0.0
        )
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, count, width))
        return out


def attention_rows(queries_BHRE: Tensor, keys_BHTE: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(E) + bias) (B, H, R, T), in float32 at least: the rows that SDPA would use."""
    scale = queries_BHRE.shape[-1] ** -0.5
    logits_BHRT = wide((queries_BHRE * scale) @ keys_BHTE.transpose(-1, -2))
    return (logits_BHRT if bias is None else logits_BHRT + bias).softmax(dim=-1)


def rows_at(tokens_BTD: Tensor, index_BK: Tensor) -> Tensor:
    """Return the tokens (B, K, D) at an index; row by row, which takes a tenth of the time of ``gather`` on a CPU."""
    batch, count = index_BK.shape
    first_B1 = torch.arange(batch, device=index_BK.device)[:, None] * tokens_BTD.shape[1]
    return tokens_BTD.flatten(0, 1).index_select(0, (index_BK + first_B1).flatten()).unflatten(0, (batch, count))


def wide(values: Tensor) -> Tensor:
    """Return half precision as float32; a rounded score would change decisions."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True)
class AttentionLayer:
    """One layer's attention on a batch (B images, Q query rows, N patches of the layer's grid).

    maps: (B, H, Q, T), rows sum to 1. grid: patches (rows, columns). has_cls: row and column 0 belong to CLS.
    num_prefix: tokens before the patches, CLS counted; None: CLS alone, if there is one.
    kept: (B, T) which token of the image (those before the patches counted) each column is, after pruning; None where
        all are there.
    """

    name: str
    maps: Tensor
    grid: tuple[int, int]
    has_cls: bool
    kept: Tensor | None = None
    num_prefix: int | None = None

    @property
    def first_patch(self) -> int:
        """Column of the first patch."""
        return int(self.has_cls) if self.num_prefix is None else self.num_prefix

    def cpu(self) -> AttentionLayer:
        """Return it on the CPU."""
        return replace(self, maps=self.maps.cpu(), kept=None if self.kept is None else self.kept.cpu())

    @classmethod
    def on_a_square(cls, name: str, maps: Tensor) -> AttentionLayer:
        """Return the layer of maps (B, H, Q, T) over a square grid, or over CLS and a square grid."""
        count = maps.shape[3]
        for has_cls in (False, True):
            side = math.isqrt(count - has_cls)
            if side * side == count - has_cls:
                return cls(name, maps, (side, side), has_cls)
        return cls(name, maps, (1, count), has_cls=False)

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def reader_BHT(self) -> Tensor:
        """Return the row that decides: that of CLS, or else the mean over all queries."""
        return self.maps[:, :, 0] if self.has_cls else self.maps.mean(dim=2)

    def patches_BHN(self) -> Tensor:
        """Return the reader's attention to patches, summing to 1; dropped patches get 0."""
        row = self.reader_BHT()[:, :, self.first_patch :]
        row = row / row.sum(dim=2, keepdim=True).clamp(min=1e-12)
        if self.kept is None:
            return row
        index = (self.kept[:, self.first_patch :] - self.first_patch)[:, None].expand_as(row)
        return row.new_zeros(*row.shape[:2], self.num_patches).scatter(2, index, row)
