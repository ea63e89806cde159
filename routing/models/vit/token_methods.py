"""Token methods: ways to give a block fewer tokens. One class each; ``routing.config.registry.SELECTIONS`` names them.

The index maths are in ``token_selection`` and ``token_merging``. Shapes: B images, T tokens (those before the patches
first), K kept, D width of a token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from routing.models.attention import rows_at
from routing.models.vit import token_selection
from routing.models.vit.token_merging import merge_tokens, merged_pairs
from routing.models.vit.token_predictor import Predictor
from routing.models.vit.token_selection import AttentionInput, Selection


@dataclass(frozen=True)
class BlockSize:
    """The block before which tokens are chosen: T ``tokens`` of ``width`` D, heads of ``head_width``."""

    tokens: int
    width: int
    head_width: int

    @property
    def keys(self) -> int:
        """Multiply-adds of the keys of all tokens."""
        return self.tokens * self.width**2

    @property
    def attention_row(self) -> int:
        """Multiply-adds of one row of attention: its query, then its products with all keys."""
        return self.width**2 + self.tokens * self.width

    def reader(self, selection: Selection) -> int:
        """Multiply-adds of the attention that ranks patches: the row of CLS, without one that of every token."""
        return self.attention_row * (1 if selection.prefix.has_cls else self.tokens)


class TokenMethod(ABC):
    """Base of every method that keeps some tokens and drops the others.

    source: where it comes from. reads: what it reads of a setting beside how many tokens stay. takes_mask: whether it
    works where attention has masks or positions, which belong to tokens of the image. is_learned: whether a predictor
    before each block of the schedule decides, which is a part of the model and has to be trained.
    """

    source: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    needs_schedule: ClassVar[bool] = False
    takes_mask: ClassVar[bool] = True
    first_block: ClassVar[int] = 1
    come_back: ClassVar[bool] = False
    is_learned: ClassVar[bool] = False

    @abstractmethod
    def choose(self, source: AttentionInput, selection: Selection) -> Tensor:
        """Return the indices (B, K) of the tokens that stay, in any order; those before the patches are among them.

        Args:
            source: tokens, keys and queries of the block.
            selection: how many stay: K = ``selection.num_kept`` = P + k + m, P of them before the patches.
        """

    @abstractmethod
    def multiply_adds(self, block: BlockSize, selection: Selection) -> int:
        """Return what choosing costs for one image."""

    def reduce(self, source: AttentionInput, tokens_BTD: Tensor, selection: Selection) -> tuple[Tensor, Tensor | None]:
        """Return the tokens (B, K, D) that stay, in their own order, and their indices (None: they were merged)."""
        with torch.no_grad():
            kept_BK = self.choose(source, selection).sort(dim=1).values
        return rows_at(tokens_BTD, kept_BK), kept_BK


class ImportanceDiversity(TokenMethod):
    """Anchors, importance, diversity, score."""

    source = "this project"
    reads = ("k_anchors", "alpha")

    def choose(self, source: AttentionInput, selection: Selection) -> Tensor:
        """See ``token_selection.importance_diversity``."""
        return token_selection.importance_diversity(source, selection)

    def multiply_adds(self, block: BlockSize, selection: Selection) -> int:
        """Keys, the row of CLS, rows of importance, cosines; a part of weight 0 is left out."""
        total, k = block.keys + block.reader(selection), selection.k_anchors
        if selection.alpha < 1:
            total += k * block.tokens * block.width
        if selection.alpha > 0:
            total += block.attention_row * (k if selection.direction == "anchor_to_token" else block.tokens)
        return total


class Random(TokenMethod):
    """Control: tokens at random."""

    source = "control"

    def choose(self, source: AttentionInput, selection: Selection) -> Tensor:
        """See ``token_selection.random``."""
        return token_selection.random(source, selection)

    def multiply_adds(self, block: BlockSize, selection: Selection) -> int:
        """Nothing."""
        return 0


class ClsAttention(TokenMethod):
    """Control: the highest attention of CLS."""

    source = "control; EViT (arXiv:2202.07800) without its fusion, before the block"

    def choose(self, source: AttentionInput, selection: Selection) -> Tensor:
        """See ``token_selection.cls_attention``."""
        return token_selection.cls_attention(source, selection)

    def multiply_adds(self, block: BlockSize, selection: Selection) -> int:
        """Keys and the row of CLS."""
        return block.keys + block.reader(selection)


class MeanAttention(TokenMethod):
    """Control: the highest mean attention of all tokens."""

    source = "control"

    def choose(self, source: AttentionInput, selection: Selection) -> Tensor:
        """See ``token_selection.mean_attention``."""
        return token_selection.mean_attention(source, selection)

    def multiply_adds(self, block: BlockSize, selection: Selection) -> int:
        """Keys and all rows of attention."""
        return block.keys + block.tokens * block.attention_row


class Diversity(TokenMethod):
    """Control: anchors, and the others by diversity alone."""

    source = "control"
    reads = ("k_anchors",)

    def choose(self, source: AttentionInput, selection: Selection) -> Tensor:
        """See ``token_selection.diversity``."""
        return token_selection.diversity(source, selection)

    def multiply_adds(self, block: BlockSize, selection: Selection) -> int:
        """Keys, the row of CLS, cosines."""
        return block.keys + block.reader(selection) + selection.k_anchors * block.tokens * block.width


class DynamicVit(TokenMethod):
    """A learned predictor scores the patches."""

    source = "DynamicViT, arXiv:2106.02034"
    needs_schedule = True
    is_learned = True

    def choose(self, source: AttentionInput, selection: Selection) -> Tensor:
        """See ``token_selection.learned``."""
        return token_selection.learned(source, selection)

    def multiply_adds(self, block: BlockSize, selection: Selection) -> int:
        """The predictor on every patch."""
        return Predictor.multiply_adds(block.tokens - selection.prefix.count, block.width)


class Merge(TokenMethod):
    """Control: similar tokens are averaged, none is dropped; similarity is measured on the keys."""

    source = "control; ToMe's matching (arXiv:2210.09461), all in one place"
    takes_mask = False

    def choose(self, source: AttentionInput, selection: Selection) -> Tensor:
        """Never asked: every token stays, in a mean."""
        raise AssertionError("merge chooses no tokens")

    def multiply_adds(self, block: BlockSize, selection: Selection) -> int:
        """Keys, and the pairs of every round."""
        pairs = merged_pairs(block.tokens, selection.num_kept, selection.prefix.count)
        return block.keys + pairs * block.head_width

    def reduce(self, source: AttentionInput, tokens_BTD: Tensor, selection: Selection) -> tuple[Tensor, Tensor | None]:
        """Return the merged tokens (B, K, D)."""
        with torch.no_grad():
            metric_BTE = source.keys().mean(dim=1)
        return merge_tokens(tokens_BTD, metric_BTE, selection.num_kept, selection.prefix.count), None
