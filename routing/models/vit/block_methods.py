"""Token methods that act inside blocks: merging or fusing between attention and MLP, and tokens that skip a block.

Each plans its steps from a schedule, runs the blocks that have one, and says what a step costs. What comes between the
steps runs as it is. Shapes: B images, T tokens (P of them before the patches), K kept, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.attention import rows_at
from routing.models.vit.host import Host
from routing.models.vit.opened import attend, feed, run_received
from routing.models.vit.positions import Positions
from routing.models.vit.schedule import FEWEST
from routing.models.vit.token_merging import merge_once, merged_pairs, most_merges
from routing.models.vit.token_selection import check_finite, reader_name


@dataclass(frozen=True)
class Step:
    """What a method does at one block: its ``kind``, on T ``tokens`` that enter, of which K are ``left``.

    setting: of a method that chooses before the block, that choice alone (a ``Pruning``).
    """

    kind: str
    tokens: int
    left: int
    setting: Any = None


@dataclass
class Stream:
    """Tokens on their way through the blocks.

    tokens: (B, T, D). kept: (B, T) which tokens of the image they are, None: all of them. are_placed: False where they
    are no longer tokens of the image. sizes: (B, T) how many tokens each stands for. scores: (B, T) attention of the
    block before.
    """

    tokens: Tensor
    kept: Tensor | None = None
    are_placed: bool = True
    sizes: Tensor | None = None
    scores: Tensor | None = None


class BlockMethod(ABC):
    """Base of every method that acts inside blocks.

    source: where it comes from. first_block: the first that it can change. fused: tokens a step adds in place of those
    it takes away. come_back: whether tokens that a block does not take are there again after it. has_own_cost: whether
    a block with a step costs anything else than a block on K tokens.
    """

    source: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    needs_schedule: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = False
    first_block: ClassVar[int] = 0
    fused: ClassVar[int] = 0
    come_back: ClassVar[bool] = False
    is_learned: ClassVar[bool] = False
    has_own_cost: ClassVar[bool] = True

    @abstractmethod
    def steps(self, kept: Mapping[int, int], host: Host, num_tokens: int) -> dict[int, Step]:
        """Return what is done at which block, where ``kept`` patches stay in each block of the schedule."""

    def most_taken(self, num_patches: int, num_prefix: int) -> int:
        """Return how many of the patches present one block can take away."""
        return num_patches

    @abstractmethod
    def run(
        self, host: Host, block: nn.Module, step: Step, stream: Stream, positions: Positions, plain: Callable[..., Any]
    ) -> None:
        """Run a block that has a step, in place; ``plain(tokens, positions)`` is the block itself."""

    def multiply_adds(self, step: Step, host: Host) -> int:
        """Return what the block with its step costs for one image; by default what it costs on the tokens left."""
        return block_multiply_adds(host, step.left)


def attention_cost(host: Host, tokens: int) -> int:
    """Return the multiply-adds of a block's attention: projections 4 T D^2, and 2 T^2 D."""
    return tokens * host.projection_multiply_adds + 2 * tokens**2 * host.width


def block_multiply_adds(host: Host, tokens: int) -> int:
    """Return the closed form of one block: its attention, and the MLP 2 T D M."""
    return attention_cost(host, tokens) + tokens * host.mlp_multiply_adds


class Tome(BlockMethod):
    """The most similar pairs are merged after attention; every token counts in attention as often as it stands for."""

    source = "ToMe, arXiv:2210.09461"

    def steps(self, kept: Mapping[int, int], host: Host, num_tokens: int) -> dict[int, Step]:
        """Every block from the first merge on: later ones weigh tokens by their size."""
        prefix = host.prefix.count
        found: dict[int, Step] = {}  # not dict[int, Step](), which an exporter cannot trace
        for index in range(host.depth):
            left = kept.get(index, num_tokens - prefix) + prefix
            most = self.most_taken(num_tokens - prefix, prefix)
            if num_tokens - left > most:
                raise InputError(
                    f"pruning.schedule: block {index} would merge {num_tokens - left} of {num_tokens} tokens, but tome "
                    f"merges pairs, at most {most} there (valid: more blocks, or fewer tokens in each)"
                )
            if found or left < num_tokens:
                found[index] = Step("tome", num_tokens, left)
            num_tokens = left
        return found

    def most_taken(self, num_patches: int, num_prefix: int) -> int:
        """Half of them, as it takes pairs, and two are left."""
        return min(most_merges(num_patches + min(1, num_prefix), num_prefix > 0), max(0, num_patches - FEWEST))

    def run(
        self, host: Host, block: nn.Module, step: Step, stream: Stream, positions: Positions, plain: Callable[..., Any]
    ) -> None:
        """Attention weighted by size, merging on the mean key, MLP."""
        seen = attend(host, block, stream.tokens, positions, sizes_BT=stream.sizes)
        tokens_BTD = seen.tokens
        if step.left < step.tokens:
            sizes_BT = torch.ones_like(tokens_BTD[..., 0]) if stream.sizes is None else stream.sizes
            metric_BTE = seen.keys.detach().mean(dim=1)
            aside = max(0, host.prefix.count - 1)
            before_BAD = tokens_BTD[:, :aside]
            merged, sizes_BT1 = merge_once(
                [tokens_BTD[:, aside:]],
                sizes_BT[:, aside:, None],
                metric_BTE[:, aside:],
                step.tokens - step.left,
                host.prefix.count > 0,
            )
            tokens_BTD, stream.sizes = merged[0], sizes_BT1[..., 0]
            if aside:
                tokens_BTD = torch.cat([before_BAD, tokens_BTD], dim=1)
                stream.sizes = torch.cat([sizes_BT[:, :aside], stream.sizes], dim=1)
            stream.are_placed = False
        stream.tokens = feed(host, block, tokens_BTD)

    def multiply_adds(self, step: Step, host: Host) -> int:
        """Attention on T, the pairs, MLP on K tokens."""
        head_width = host.width // host.heads(host.parts(host.blocks[0])[1])
        pairs = merged_pairs(step.tokens, step.left, host.prefix.count) * head_width
        return attention_cost(host, step.tokens) + pairs + step.left * host.mlp_multiply_adds


class Evit(BlockMethod):
    """The patches that CLS attends to most stay after attention; the others become one token, their weighted sum."""

    source = "EViT, arXiv:2202.07800"
    fused = 1

    def steps(self, kept: Mapping[int, int], host: Host, num_tokens: int) -> dict[int, Step]:
        """The blocks of the schedule."""
        found = {}
        for index, count in kept.items():
            if host.prefix.count + count < num_tokens:
                left = host.prefix.count + count + self.fused
                found[index] = Step("evit", num_tokens, left)
                num_tokens = left
        return found

    def run(
        self, host: Host, block: nn.Module, step: Step, stream: Stream, positions: Positions, plain: Callable[..., Any]
    ) -> None:
        """Attention, the choice by its row of CLS, fusion, MLP."""
        seen, first = attend(host, block, stream.tokens, positions), host.prefix.count
        with torch.no_grad():
            attention_BT = seen.reader_BT(host.prefix.has_cls)
            check_finite({reader_name(host.prefix): attention_BT}, stream.tokens.requires_grad)
            ranked = attention_BT[:, first:].sort(dim=1, descending=True, stable=True)
            count = step.left - first - self.fused
            kept_BK = ranked.indices[:, :count].sort(dim=1).values + first
            lost_BM, weight_BM = ranked.indices[:, count:] + first, ranked.values[:, count:]
        fused_B1D = weight_BM[:, None].to(seen.tokens.dtype) @ rows_at(seen.tokens, lost_BM)
        kept_BKD = rows_at(seen.tokens, kept_BK)
        stream.tokens = feed(host, block, torch.cat([seen.tokens[:, :first], kept_BKD, fused_B1D], dim=1))
        stream.are_placed = False

    def multiply_adds(self, step: Step, host: Host) -> int:
        """Attention and its deciding row(s) on T tokens, the sum of those lost, MLP on K."""
        width, rows = host.width, 1 if host.prefix.has_cls else step.tokens
        lost = step.tokens - (step.left - self.fused)
        choice = rows * step.tokens * width + lost * width
        return attention_cost(host, step.tokens) + choice + step.left * host.mlp_multiply_adds


class Amod(BlockMethod):
    """Patches that got the least attention in the block before skip this one, and are there again after it."""

    source = "A-MoD, arXiv:2412.20875"
    takes_mask = True
    first_block = 1
    come_back = True
    has_own_cost = False

    def steps(self, kept: Mapping[int, int], host: Host, num_tokens: int) -> dict[int, Step]:
        """The blocks of the schedule, and those before them, whose attention decides."""
        found: dict[int, Step] = {}
        for index, count in kept.items():
            if index - 1 in found and found[index - 1].kind == "routed":
                raise InputError(
                    f"pruning.schedule: blocks {index - 1} and {index}; amod reads the attention of the block before, "
                    "which must take all tokens (valid: every other block at most)"
                )
            if host.prefix.count + count < num_tokens:
                found[index - 1] = Step("scored", num_tokens, num_tokens)
                found[index] = Step("routed", num_tokens, host.prefix.count + count)
        return found

    def run(
        self, host: Host, block: nn.Module, step: Step, stream: Stream, positions: Positions, plain: Callable[..., Any]
    ) -> None:
        """Note the attention that tokens receive; or gather the best, run the block, and put them back."""
        first, tokens_BTD = host.prefix.count, stream.tokens
        if step.kind == "scored":
            stream.tokens, received_BT = run_received(host, block, tokens_BTD, positions)
            stream.scores = received_BT.detach()
            return
        assert stream.scores is not None
        check_finite({"attention that a token receives": stream.scores}, stream.tokens.requires_grad)
        ranked_BN = stream.scores[:, first:].argsort(dim=1, descending=True, stable=True)
        best_BK = ranked_BN[:, : step.left - first].sort(dim=1).values + first
        before_BP = torch.arange(first, device=best_BK.device).expand(len(best_BK), -1)
        taken_BK = torch.cat([before_BP, best_BK], dim=1)
        after_BKD = plain(rows_at(tokens_BTD, taken_BK), positions.of(taken_BK, first, step.tokens))
        places = taken_BK[..., None].expand(-1, -1, tokens_BTD.shape[2])
        stream.tokens = tokens_BTD.scatter(1, places, after_BKD.to(tokens_BTD.dtype))
