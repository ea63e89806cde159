"""Blocks of a host under a setting of token reduction: how they run, and of which parts their cost is made.

Shapes: B images, T tokens (those before the patches first), K kept, D width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from routing.models.base import CountedPart, PartKey, PartName
from routing.models.vit.block_methods import BlockMethod, Step, Stream, block_multiply_adds
from routing.models.vit.host import Host
from routing.models.vit.positions import Positions
from routing.models.vit.setting import Pruning


def run_blocks(host: Host, pruning: Pruning | None, tokens_BTD: Tensor, first: int = 0) -> Stream:
    """Run the blocks from ``first`` on; what came before ran on all tokens."""
    before, stream = tokens_BTD.shape[1], Stream(tokens_BTD)
    positions = host.positions()
    steps = {} if pruning is None else pruning.steps(host, before)
    for index, block in enumerate(host.blocks[first:], first):
        step = steps.get(index)
        if step is not None and step.kind == "select":
            now = positions[index].of(stream.kept, host.prefix.count, before)
            stream.tokens, chosen_BK = reduce_tokens(host, block, step.setting, stream.tokens, now)
            is_chained = stream.kept is not None and chosen_BK is not None
            stream.kept = stream.kept.gather(1, chosen_BK) if is_chained else chosen_BK  # type: ignore[union-attr]
            stream.are_placed &= chosen_BK is not None
            step = None
        now = positions[index].of(stream.kept, host.prefix.count, before)
        if step is None:
            stream.tokens = host.run(block, stream.tokens, now)
        else:
            assert pruning is not None
            pruning.check_positions(now)
            run_step(host, pruning, block, step, stream, now)
    return stream


def run_step(host: Host, pruning: Pruning, block: nn.Module, step: Step, stream: Stream, positions: Positions) -> None:
    """Run a block as a method that acts inside it says, in place."""
    assert isinstance(pruning.acting, BlockMethod)
    pruning.acting.run(host, block, step, stream, positions, lambda tokens_BTD, now: host.run(block, tokens_BTD, now))


def reduce_tokens(
    host: Host, block: nn.Module, pruning: Pruning, tokens_BTD: Tensor, positions: Positions
) -> tuple[Tensor, Tensor | None]:
    """Return the tokens (B, K, D) that ``block`` is given, in their own order, and their indices (None: merged).

    Raises:
        InputError: a mask or positions inside attention, which the method cannot take.
    """
    pruning.check_positions(positions)
    with torch.no_grad():
        source = host.attention_input(block, tokens_BTD, positions)
        if pruning.predictors:
            predictor, first = pruning.predictors[str(pruning.start_layer)], host.prefix.count
            source = replace(source, scores=lambda: predictor.scores(tokens_BTD[:, first:]))
    return pruning.chooser.reduce(source, tokens_BTD, pruning.selection)


def units(host: Host, pruning: Pruning | None, num_tokens: int) -> tuple[dict[PartKey, int], int, int]:
    """Return how often every part of the blocks runs for one image, and the tokens at the end and at their fewest."""
    steps = {} if pruning is None else pruning.steps(host, num_tokens)
    found: dict[PartKey, int] = {}
    tokens = fewest = num_tokens
    for index in range(host.depth):
        step = steps.get(index)
        for key in _keys(step, pruning, tokens):
            found[key] = found.get(key, 0) + 1
        if step is not None:
            fewest = min(fewest, step.left)
            tokens = tokens if pruning is not None and pruning.comes_back else step.left
    return found, tokens, fewest


def _keys(step: Step | None, pruning: Pruning | None, tokens: int) -> tuple[PartKey, ...]:
    if step is None or pruning is None:
        return (PartKey("block", tokens),)
    if step.kind == "select":
        return PartKey("select", step.tokens, step.setting), PartKey("block", step.left)
    assert isinstance(pruning.acting, BlockMethod)
    if not pruning.acting.has_own_cost:
        return (PartKey("block", step.left),)
    return (PartKey(step.kind, step.tokens, (type(pruning.acting), step)),)


def part(host: Host, key: PartName) -> CountedPart:
    """Return what a key of ``units`` stands for."""
    inputs = (torch.zeros(1, key.tokens, host.width),)
    if key.setting is None:
        return CountedPart(KeptBlock(host, host.depth - 1), inputs, block_multiply_adds(host, key.tokens), None)
    if isinstance(key.setting, Pruning):
        choice = Choice(host, host.blocks[key.setting.start_layer], key.setting)
        return CountedPart(choice, inputs, key.setting.multiply_adds(host, key.tokens), None)
    method, step = key.setting[0](), key.setting[1]
    return CountedPart(SteppedBlock(host, method, step), inputs, method.multiply_adds(step, host), None)


class Choice(nn.Module):
    """The choice of tokens before one block as a module of its own, for the compute ledger to trace."""

    def __init__(self, host: Host, block: nn.Module, pruning: Pruning) -> None:
        super().__init__()
        self.host, self.block, self.pruning = host, block, pruning

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Return the tokens (B, K, D) that go on."""
        positions = _of_first(self.host, self.pruning.start_layer, tokens_BTD)
        return reduce_tokens(self.host, self.block, self.pruning, tokens_BTD, positions)[0]


class KeptBlock(nn.Module):
    """A block on its first K tokens, with what its host hands it, as a module of its own for the compute ledger."""

    def __init__(self, host: Host, index: int) -> None:
        super().__init__()
        self.host, self.index, self.block = host, index, host.blocks[index]

    def forward(self, tokens_BKD: Tensor) -> Tensor:
        """Return what leaves the block (B, K, D)."""
        return self.host.run(self.block, tokens_BKD, _of_first(self.host, self.index, tokens_BKD))


class SteppedBlock(nn.Module):
    """The last block with a step of a method as a module of its own, for the compute ledger to trace."""

    def __init__(self, host: Host, method: BlockMethod, step: Step) -> None:
        super().__init__()
        self.host, self.method, self.step, self.block = host, method, step, host.blocks[-1]

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Return what leaves the block (B, K, D)."""
        stream, positions = Stream(tokens_BTD), _of_first(self.host, self.host.depth - 1, tokens_BTD)
        self.method.run(
            self.host,
            self.block,
            self.step,
            stream,
            positions,
            lambda tokens, now: self.host.run(self.block, tokens, now),
        )
        return stream.tokens


def _of_first(host: Host, index: int, tokens_BKD: Tensor) -> Positions:
    """Return the positions of a block for its first K tokens."""
    kept_BK = torch.arange(tokens_BKD.shape[1], device=tokens_BKD.device).expand(len(tokens_BKD), -1)
    return host.positions()[index].of(kept_BK, host.prefix.count, host.num_tokens)
