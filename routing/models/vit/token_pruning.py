"""Token reduction of a trained vision transformer: from one block on, or block by block, an image has fewer tokens.

    with pruned(model, k_anchors=10, top_m=50, alpha=0.5, start_layer=1) as record:
        logits = model(images)
    with reduced(model, "tome", 8):
        logits = model(images)

The tokens are chosen by the norm and the keys of block ``start_layer`` (blocks count from 0) and its queries of CLS and
the anchors. That block and all later ones then run on the kept tokens alone, in their own order, so that keeping all
changes no bit. No module of the model is replaced: hooks are added and removed with the context. A compiled model is
compiled again at its first call inside the context, and at the first one after it. A schedule is one such choice after
another; methods that act inside blocks take the place of a block's ``forward`` as long as the context lasts.

Shapes: B images, T tokens (those before the patches first), K kept, D width.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.vit.block_methods import BlockMethod, Step, Stream
from routing.models.vit.hosts import Host, host_of
from routing.models.vit.positions import Positions
from routing.models.vit.reducer import reduce_tokens, run_step
from routing.models.vit.schedule import Schedule
from routing.models.vit.setting import UNPRUNED, Pruning
from routing.models.vit.token_predictor import Predictor
from routing.models.vit.token_selection import Direction, Normalize, Selection, select_tokens

__all__ = ["UNPRUNED", "Pruning", "PruningRecord", "pruned", "pruned_by", "reduced", "select_tokens"]


@dataclass
class PruningRecord:
    """Record of the latest forward pass.

    kept: (B, K) ascending, which tokens of the image are left; None where they are no longer tokens of the image.
    tokens_before: T. choices: block -> what was kept from it on.
    """

    kept: Tensor | None = None
    tokens_before: int | None = None
    choices: dict[int, Tensor | None] = field(default_factory=dict)

    def kept_at(self, index: int) -> Tensor | None:
        """Return which tokens (B, K) block ``index`` ran on; None: all, or no longer tokens of the image."""
        before = [block for block in self.choices if block <= index]
        return self.choices[max(before)] if before else None


@dataclass
class _Acting(ABC):
    """What acts on the blocks of one context, from block ``first`` on."""

    host: Host
    pruning: Pruning
    steps: dict[int, Step]
    first: int
    record: PruningRecord = field(default_factory=PruningRecord)

    @abstractmethod
    def enter(self, hooks: ExitStack) -> None:
        """Act on every block from the first step on, until ``hooks`` is closed."""


@dataclass
class _Pruner(_Acting):
    """The hooks of one context, of a method that chooses before blocks."""

    def before(self, index: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Choose and gather tokens before a block with a step; gather mask and positions before every block."""
        tokens_BTD, record = self.host.tokens_in(args[0]), self.record
        if index == self.first:
            record.kept, record.tokens_before, record.choices = None, tokens_BTD.shape[1], {}
            self.steps = self.pruning.steps(self.host, record.tokens_before)
        received = self.host.received(block, args, kwargs)
        if index in self.steps:
            positions = self._of_kept(received)
            kept_BKD, kept_BK = reduce_tokens(self.host, block, self.steps[index].setting, tokens_BTD, positions)
            record.kept = kept_BK if record.kept is None or kept_BK is None else record.kept.gather(1, kept_BK)
            record.choices[index] = record.kept
            args = (self.host.tokens_out(kept_BKD), *args[1:])
        if received.are_none or record.kept is None:
            return args, kwargs
        return self.host.handed(block, args, kwargs, self._of_kept(received))

    def _of_kept(self, positions: Positions) -> Positions:
        record = self.record
        assert record.tokens_before is not None
        return positions.of(record.kept, self.host.prefix.count, record.tokens_before)

    def enter(self, hooks: ExitStack) -> None:
        """Hook them."""
        for index, block in enumerate(self.host.blocks[self.first :], self.first):
            hook = partial(self.before, index)
            hooks.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
            hooks.callback(block.register_forward_hook(self._release, always_call=True).remove)

    def _release(self, block: nn.Module, *_: Any) -> None:
        """Undo after a block what was done before it."""
        self.host.release(block)


@dataclass
class _Runner(_Acting):
    """What runs in place of the blocks of one context, of a method that acts inside them."""

    stream: Stream | None = None

    def forward(self, index: int, block: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Run a block as its step says, or as it is where it has none."""
        tokens_BTD = self.host.tokens_in(args[0])
        if index == self.first or self.stream is None:
            self.record.tokens_before = tokens_BTD.shape[1]
            self.steps = self.pruning.steps(self.host, tokens_BTD.shape[1])
            self.stream = Stream(tokens_BTD)
        positions = self.host.received(block, args, kwargs)
        self.pruning.check_positions(positions)
        with _as_it_is(block):
            if index not in self.steps:
                out: Tensor = block(*args, **kwargs)
                return out
            self.stream.tokens = tokens_BTD
            run_step(self.host, self.pruning, block, self.steps[index], self.stream, positions)
        return self.host.tokens_out(self.stream.tokens)

    def enter(self, hooks: ExitStack) -> None:
        """Take their place."""
        for index, block in enumerate(self.host.blocks[self.first :], self.first):
            hooks.callback(_restore, block, block.__dict__.get("forward"))
            block.__dict__["forward"] = partial(self.forward, index, block)


@contextmanager
def _as_it_is(block: nn.Module) -> Iterator[None]:
    """Give a block its own ``forward`` back inside the context."""
    replaced = block.__dict__.pop("forward")
    try:
        yield
    finally:
        block.__dict__["forward"] = replaced


def _is_replaced(block: nn.Module) -> bool:
    """Return whether a method that acts inside blocks runs in place of this one."""
    forward = block.__dict__.get("forward")
    return isinstance(forward, partial) and isinstance(getattr(forward.func, "__self__", None), _Runner)


def _restore(block: nn.Module, forward: Any) -> None:
    block.__dict__.pop("forward", None)
    if forward is not None:
        block.__dict__["forward"] = forward


@contextmanager
def pruned(
    model: nn.Module,
    k_anchors: int,
    top_m: int,
    alpha: float = 0.5,
    start_layer: int = 1,
    *,
    method: str = "importance_diversity",
    direction: Direction = "anchor_to_token",
    normalize: Normalize = "minmax",
) -> Iterator[PruningRecord]:
    """Prune tokens of ``model`` inside the context; outside it is exactly as before, also after an exception.

    Contexts nest: the tokens that the outer one kept are pruned further by the inner one.

    Args:
        model: anything ``hosts.host_of`` knows; a whole open_clip model is pruned in its vision tower.
        k_anchors: as in ``select_tokens``, and so are the four that follow.
        top_m: see there.
        alpha: see there.
        direction: see there.
        normalize: see there.
        start_layer: the first block that runs on fewer tokens, 1 to depth - 1.
        method: a name of ``routing.config.registry.SELECTIONS``.

    Yields:
        A record of the latest forward pass: which tokens were kept.

    Raises:
        InputError: a value out of range, more tokens kept than there are, or a model of another kind.
    """
    pruning = Pruning(Selection(k_anchors, top_m, alpha, direction, normalize), start_layer, method)
    with pruned_by(model, pruning) as record:
        yield record


@contextmanager
def reduced(
    model: nn.Module,
    method: str,
    schedule: Any,
    *,
    k_anchors: int = 10,
    alpha: float = 0.5,
    predictors: Mapping[str, Predictor] | None = None,
) -> Iterator[PruningRecord]:
    """Reduce tokens of ``model`` by a schedule inside the context; outside it is exactly as before.

    Args:
        model: as of ``pruned``.
        method: a name of ``routing.config.registry.SELECTIONS``.
        schedule: ``{4: 0.7, 7: 0.7}``, a block and the share (or the number) of patches that stay; or ``8``, this many
            fewer in every block.
        k_anchors, alpha: of ``importance_diversity`` and ``diversity``.
        predictors: of ``dynamicvit``, those of a trained run (``load(RUN).model.predictors``).

    Yields:
        A record of the latest forward pass: which tokens were kept, where they are still tokens of the image.

    Raises:
        InputError: a schedule that the model or the method cannot take; or inside the context of a method that acts
            inside blocks.
    """
    chosen = Selection(k_anchors, 1, alpha)
    pruning = Pruning(chosen, method=method, schedule=Schedule.of(schedule), predictors=predictors)
    with pruned_by(model, pruning) as record:
        yield record


@contextmanager
def pruned_by(model: nn.Module, pruning: Pruning | None) -> Iterator[PruningRecord]:
    """``pruned`` and ``reduced`` with a complete setting; None prunes nothing."""
    if pruning is None:
        yield PruningRecord()
        return
    host = host_of(model)
    fitted = pruning.on(host)
    steps = fitted.steps(host)
    if not steps:
        yield PruningRecord()
        return
    if any(map(_is_replaced, host.blocks)):
        raise InputError(
            "tokens of this model are being reduced inside its blocks; another reduction of it cannot begin (valid: "
            "first leave the context of reduced)"
        )
    kind = _Runner if isinstance(fitted.acting, BlockMethod) else _Pruner
    acting = kind(host, fitted, steps, min(steps))
    with ExitStack() as hooks:
        acting.enter(hooks)
        hooks.callback(_forget_compiled)
        _forget_compiled()
        yield acting.record


def _forget_compiled() -> None:
    """Force compiled models to compile again: code compiled earlier ignores hooks added or removed since."""
    if "torch._dynamo" in sys.modules:  # else nothing was compiled, and it takes a second to import
        torch.compiler.reset()
