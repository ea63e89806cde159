"""Control of token pruning: merge similar tokens instead of dropping them (ToMe, arXiv:2210.09461, section 3).

ToMe merges a few tokens in every block; here all merging happens in one place, in as many rounds as it takes (a round
merges at most half), so that it is compared with dropping at the same number of tokens in the same blocks. Attention
is not weighted by token size.

Shapes: B images, T tokens (P of them before the patches, never merged), E width of a head, D width of a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from routing.models.attention import rows_at


def merge_tokens(tokens_BTD: Tensor, metric_BTE: Tensor, count: int, num_prefix: int = 1) -> Tensor:
    """Return ``count`` tokens (B, count, D): most similar pairs averaged, weighted by how many each stands for.

    Args:
        tokens_BTD: the tokens.
        metric_BTE: what similarity is measured on; ToMe takes the keys averaged over heads.
        count: tokens wanted, those before the patches included; at least 2.
        num_prefix: P. All but the last are set aside; the last is the first of the even tokens, which stays.
    """
    assert count >= 2
    if num_prefix > 1:
        aside = num_prefix - 1
        rest_BKD = merge_tokens(tokens_BTD[:, aside:], metric_BTE[:, aside:], count - aside)
        return torch.cat([tokens_BTD[:, :aside], rest_BKD], dim=1)
    has_prefix = num_prefix == 1
    sizes_BT1 = torch.ones_like(tokens_BTD[..., :1])
    while tokens_BTD.shape[1] > count:
        merges = min(tokens_BTD.shape[1] - count, most_merges(tokens_BTD.shape[1], has_prefix))
        (tokens_BTD, metric_BTE), sizes_BT1 = merge_once(
            (tokens_BTD, metric_BTE), sizes_BT1, metric_BTE, merges, has_prefix
        )
    return tokens_BTD


def merge_once(
    values: Sequence[Tensor], sizes_BT1: Tensor, metric_BTE: Tensor, merges: int, has_prefix: bool = True
) -> tuple[list[Tensor], Tensor]:
    """Merge the ``merges`` most similar pairs: return every one of ``values`` (B, T, .) averaged, and the new sizes.

    Args:
        values: averaged, weighted by ``sizes_BT1``: how many tokens each stands for.
        merges: at most ``most_merges(T, has_prefix)``.
        has_prefix: whether token 0 is never merged.
    """
    order, target = _match(metric_BTE, merges, has_prefix)
    total_BT1 = _fold(sizes_BT1, order, target)
    merged = [_fold(v * sizes_BT1.to(v.dtype), order, target) / total_BT1.to(v.dtype) for v in values]
    return merged, total_BT1


def merged_pairs(num_tokens: int, count: int, num_prefix: int = 1) -> int:
    """Return how many pairs of tokens are compared in all rounds: what the matching costs, times the metric's width."""
    aside = max(0, num_prefix - 1)
    num_tokens, count, pairs = num_tokens - aside, count - aside, 0
    while num_tokens > count:
        pairs += ((num_tokens + 1) // 2) * (num_tokens // 2)
        num_tokens -= min(num_tokens - count, most_merges(num_tokens, num_prefix > 0))
    return pairs


def most_merges(num_tokens: int, has_prefix: bool = True) -> int:
    """Return how many tokens one round can merge: every even one, but not the first where it is before the patches."""
    return (num_tokens + 1) // 2 - int(has_prefix)


def _match(metric_BTE: Tensor, merges: int, has_prefix: bool) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Match even with odd positions; return (even positions that stay, those that merge), and where the latter go."""
    unit = metric_BTE / torch.linalg.vector_norm(metric_BTE, dim=2, keepdim=True).clamp(min=1e-12)
    similarity = (unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)).float()
    best, target = similarity.max(dim=2)
    if has_prefix:
        best[:, 0] = -torch.inf  # CLS is the first even token and stays
    ranked = best.argsort(dim=1, descending=True, stable=True)
    leaving, staying = ranked[:, :merges], ranked[:, merges:].sort(dim=1).values
    return (staying, leaving), target.gather(1, leaving)


def _fold(values: Tensor, order: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Add the leaving even rows to their odd targets; return staying even rows, then odd rows."""
    staying, leaving = order
    width = values.shape[2]
    even, odd = values[:, ::2], values[:, 1::2]
    odd = odd.scatter_add(1, target[..., None].expand(-1, -1, width), rows_at(even, leaving))
    return torch.cat([rows_at(even, staying), odd], dim=1)
