"""Token selection written out token by token, from attention as the fused kernel of a host's own block saw it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor


def literal_choice(attention_HTT: Tensor, normed_TD: Tensor, first: int, has_cls: bool) -> list[int]:
    """Return the tokens that 2 anchors, 4 others and alpha 0.5 keep of one image, in ascending order.

    Args:
        first: tokens before the patches, which stay.
    """
    attention = attention_HTT.mean(dim=0)
    reader = attention[0] if has_cls else attention.mean(dim=0)
    ranked = sorted(range(first, len(attention)), key=lambda token: -float(reader[token]))
    anchors, others = ranked[:2], sorted(ranked[2:])
    importance = [float(sum(attention[a, t] for a in anchors)) / 2 for t in others]
    diversity = [
        1 - max(float(F.cosine_similarity(normed_TD[t], normed_TD[a], dim=0)) for a in anchors) for t in others
    ]
    score = [0.5 * i + 0.5 * d for i, d in zip(_scaled(importance), _scaled(diversity), strict=True)]
    best = sorted(range(len(others)), key=lambda index: -score[index])[:4]
    return sorted([*range(first), *anchors, *(others[index] for index in best)])


def _scaled(values: list[float]) -> list[float]:
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


@contextmanager
def attention_seen() -> Iterator[list[Tensor]]:
    """Collect softmax(q k^T / sqrt(E) + mask) (B, H, T, T) of every call of the fused kernel."""
    seen: list[Tensor] = []
    kernel = F.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **others: Any) -> Tensor:
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        seen.append((logits if attn_mask is None else logits + attn_mask).softmax(dim=-1))
        return kernel(q, k, v, attn_mask=attn_mask, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", spy)
        yield seen
