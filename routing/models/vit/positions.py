"""What attention is given beside the tokens, and how it travels with the tokens that are kept.

Shapes: B images, H heads, T tokens, P of them before the N patches, K kept, R width of a rotary embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from routing.errors import InputError


@dataclass(frozen=True)
class Prefix:
    """The tokens before the patches, which always stay: class, register and distillation tokens.

    count: P. has_cls: whether the first of them is a class token, whose attention says which patches matter; without
    one it is the mean attention that a token receives.
    """

    count: int = 1
    has_cls: bool = True


@dataclass(frozen=True)
class Positions:
    """Positions and masks inside attention.

    rope: sines and cosines of the patches (N, R), (H, N, R) or (B, H or 1, N, R); prefix tokens are not rotated.
    bias: added to the attention logits, (B or 1, H or 1, T or 1, T); -inf hides a key.
    """

    rope: Tensor | None = None
    bias: Tensor | None = None

    @property
    def are_none(self) -> bool:
        """Whether attention is given nothing beside the tokens."""
        return self.rope is None and self.bias is None

    def of(self, kept_BK: Tensor | None, num_prefix: int, tokens: int) -> Positions:
        """Return those of the kept tokens among ``tokens``; nothing to gather returns them as they are."""
        if kept_BK is None or kept_BK.shape[1] == tokens:
            return self
        rope, bias = self.rope, self.bias
        return replace(
            self,
            rope=None if rope is None else rope_of(rope, kept_BK[:, num_prefix:] - num_prefix),
            bias=None if bias is None else bias_of(bias, kept_BK, tokens),
        )


def rope_of(rope: Tensor, patches_BR: Tensor) -> Tensor:
    """Return the rotary embeddings (B, H or 1, R, .) of patches (B, R)."""
    rope = rope[(None,) * (4 - rope.ndim)].expand(len(patches_BR), -1, -1, -1)
    return rope.gather(2, patches_BR[:, None, :, None].expand(-1, rope.shape[1], -1, rope.shape[3]))


def bias_of(bias: Tensor, kept_BK: Tensor, tokens: int) -> Tensor:
    """Return the rows and columns (B, H or 1, K, K) of the kept tokens."""
    if bias.shape[3] != tokens:
        raise InputError(f"token pruning: the attention mask is for {bias.shape[3]} tokens, but {tokens} were there")
    batch, count = kept_BK.shape
    bias = bias.expand(batch, *bias.shape[1:])
    if bias.shape[2] > 1:
        bias = bias.gather(2, kept_BK[:, None, :, None].expand(-1, bias.shape[1], -1, bias.shape[3]))
    return bias.gather(3, kept_BK[:, None, None].expand(-1, bias.shape[1], bias.shape[2], -1)).expand(-1, -1, count, -1)
