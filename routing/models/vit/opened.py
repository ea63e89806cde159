"""A block of a host taken apart, so that tokens can be merged or dropped between its attention and its MLP.

Run one after the other, ``attend`` and ``feed`` are the block itself, with the same multiply-adds.

Shapes: B images, H heads, T tokens, D width, E = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.attention import attention_rows
from routing.models.vit.host import Host, branch
from routing.models.vit.positions import Positions


@dataclass(frozen=True)
class Attended:
    """Tokens after the attention of a block.

    tokens: (B, T, D), the shortcut added. queries, keys: (B, H, T, E), as attention used them. bias: added to its
    logits, or None. received: (B, T), the attention that a token receives, mean over heads and queries, if asked for.
    """

    tokens: Tensor
    queries: Tensor
    keys: Tensor
    bias: Tensor | None
    received: Tensor | None = None

    def reader_BT(self, has_cls: bool) -> Tensor:
        """Return the attention (B, T) of the first token, or else the mean that a token receives; heads averaged."""
        queries, bias = self.queries, self.bias
        if has_cls:
            queries, bias = queries[:, :, :1], bias if bias is None else bias[:, :, :1]
        return attention_rows(queries, self.keys, bias).mean(dim=(1, 2))


def attend(
    host: Host,
    block: nn.Module,
    tokens_BTD: Tensor,
    positions: Positions,
    *,
    sizes_BT: Tensor | None = None,
    left_BT: Tensor | None = None,
    with_received: bool = False,
) -> Attended:
    """Run the attention of a block and its shortcut.

    Args:
        sizes_BT: how many tokens each stands for: proportional attention, softmax(q k^T / sqrt(E) + log size).
        left_BT: 0 for tokens that no other token sees, else 1; they see themselves, and have gradients all the same.
        with_received: also return what tokens receive; no further products, but the fused kernel is not used.

    Raises:
        InputError: a host that does not say how its blocks are built.
    """
    if not host.out_branch:
        raise InputError(f"{type(block).__name__}: tokens of this model cannot be reduced inside a block")
    norm, attention = host.parts(block)
    weight, offset = host.in_projection(attention)
    normed_BTD = norm(tokens_BTD)
    projected = F.linear(normed_BTD, weight, offset).unflatten(2, (3, host.heads(attention), -1))
    queries, keys, values = projected.permute(2, 0, 3, 1, 4)
    queries, keys = (
        host.rotated(attention, host.normed_head(attention, rows, index), positions, None).to(values.dtype)
        for index, rows in enumerate((queries, keys))
    )
    bias = positions.bias
    if sizes_BT is not None:
        logs = sizes_BT.float().log()[:, None, None]
        bias = logs if bias is None else bias + logs
    dropout = _dropout(attention)
    received_BT = None
    if left_BT is not None:
        rows_BHTT = _among(attention_rows(queries, keys, bias), left_BT)
        mixed_BHTE = F.dropout(rows_BHTT, dropout).to(values.dtype) @ values
    elif with_received:
        mixed_BHTE, received_BT = _received(queries, keys, values, bias, dropout)
    else:
        bias_used = None if bias is None else bias.to(queries.dtype)
        mixed_BHTE = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias_used, dropout_p=dropout)
    out_BTD = branch(block, host.branches(block)[0], host.attention_output(attention, normed_BTD, mixed_BHTE))
    return Attended(tokens_BTD + out_BTD, queries, keys, bias, received_BT)


def run_received(host: Host, block: nn.Module, tokens_BTD: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
    """Run a block; return tokens (B, T, D), and the attention (B, T) each received, mean over heads and queries."""
    seen = attend(host, block, tokens_BTD, positions, with_received=True)
    assert seen.received is not None
    return feed(host, block, seen.tokens), seen.received


def feed(host: Host, block: nn.Module, tokens_BTD: Tensor) -> Tensor:
    """Run the MLP of a block and its shortcut."""
    return tokens_BTD + branch(block, host.branches(block)[1], tokens_BTD)


def _received(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor]:
    """Return the attended values (B, H, T, E), and the attention (B, T) that tokens receive.

    On a CPU without gradients image by image: its attention fits the cache, and no projection is copied. The values are
    the same to the last bit.
    """

    def of(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        rows = attention_rows(queries, keys, bias)
        return F.dropout(rows, dropout).to(values.dtype) @ values, rows.mean(dim=(-3, -2))

    if queries.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return of(queries, keys, values, bias)
    biases = [None] * len(queries) if bias is None else bias.expand(len(queries), *bias.shape[1:])
    found = [of(*image) for image in zip(queries, keys, values, biases, strict=True)]
    return torch.stack([mixed for mixed, _ in found]), torch.stack([received for _, received in found])


def _among(rows_BHTT: Tensor, left_BT: Tensor) -> Tensor:
    """Return attention to the tokens that are left and to the token itself alone, its rows with the sum 1 again."""
    itself_TT = torch.eye(left_BT.shape[1], device=left_BT.device)
    left_B11T = left_BT[:, None, None]
    rows_BHTT = rows_BHTT * (left_B11T + (1 - left_B11T) * itself_TT)
    return rows_BHTT / rows_BHTT.sum(dim=-1, keepdim=True).clamp(min=1e-12)


def _dropout(attention: nn.Module) -> float:
    """Return the probability that attention drops one of its weights now."""
    if not attention.training:
        return 0.0
    dropout = getattr(attention, "dropout", None)
    if isinstance(dropout, float):
        return dropout
    return float(getattr(getattr(attention, "attn_drop", None), "p", 0.0))
