"""Token pruning of a trained vision transformer: from one block on, every image keeps only its best tokens.

    with pruned(model, k_anchors=10, top_m=50, alpha=0.5, start_layer=1) as record:
        logits = model(images)

The tokens are chosen by the norm and the keys of block ``start_layer`` (blocks count from 0) and its queries of CLS and
the anchors. That block and all later ones then run on the kept tokens alone, in their own order, so that keeping all
changes no bit. No module of the model is replaced: hooks are added and removed with the context. A compiled model is
compiled again at its first call inside the context, and at the first one after it.

Shapes: B images, T tokens (those before the patches first), K kept, D width.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from routing.config.registry import SELECTIONS
from routing.errors import InputError, choices, nearest
from routing.models.vit.hosts import Host, host_of
from routing.models.vit.positions import Positions
from routing.models.vit.token_methods import BlockSize, TokenMethod
from routing.models.vit.token_selection import Direction, Normalize, Selection, select_tokens

__all__ = ["Choice", "Pruning", "PruningRecord", "pruned", "pruned_by", "reduce_tokens", "select_tokens"]

UNPRUNED = "none"


@dataclass(frozen=True)
class Pruning:
    """A complete setting: the method, how many tokens it keeps, and from which block on (counted from 0)."""

    selection: Selection
    start_layer: int = 1
    method: str = "importance_diversity"

    def __post_init__(self) -> None:
        """Find the method here and not where it is used: an exporter cannot trace the import of a module."""
        try:
            object.__setattr__(self, "_chooser", SELECTIONS.get(self.method)())
        except InputError as error:
            raise InputError(f"pruning.method: {error}") from None

    @property
    def chooser(self) -> TokenMethod:
        """The method itself."""
        chooser: TokenMethod = self.__dict__["_chooser"]
        return chooser

    def check(self, num_tokens: int, depth: int) -> None:
        """Raise ``InputError`` for a setting that a model of this size cannot take."""
        if not 1 <= self.start_layer < depth:
            raise InputError(
                f"pruning.start_layer {self.start_layer}: the model has blocks 0 to {depth - 1}, and the first is "
                f"never pruned (valid: 1 to {depth - 1})"
            )
        self.selection.check(num_tokens)

    def on(self, host: Host) -> Pruning:
        """Return the setting for a model: with the tokens before its patches.

        Raises:
            InputError: a setting that the model cannot take.
        """
        fitted = replace(self, selection=replace(self.selection, prefix=host.prefix))
        fitted.check(host.num_tokens, host.depth)
        return fitted

    def text(self) -> str:
        """Return the setting as a knob value: ``k_anchors=10,top_m=20,alpha=0.5,start_layer=2``."""
        chosen = self.selection
        alpha = f"{chosen.alpha:g}" if float(f"{chosen.alpha:g}") == chosen.alpha else repr(chosen.alpha)
        return f"k_anchors={chosen.k_anchors},top_m={chosen.top_m},alpha={alpha},start_layer={self.start_layer}"

    def with_text(self, text: str) -> Pruning:
        """Return a copy with the values of ``text``, which may also name method and direction; keys left out stay."""
        found: dict[str, Any] = {}
        kinds = {"k_anchors": int, "top_m": int, "alpha": float, "start_layer": int, "method": str, "direction": str}
        for item in text.split(","):
            key, _, value = (part.strip() for part in item.partition("="))
            if key not in kinds:
                raise InputError(
                    f"pruning '{text}': unknown key '{key}'{nearest(key, kinds)} (valid: {choices(kinds)})"
                )
            try:
                found[key] = kinds[key](value)
            except ValueError:
                raise InputError(f"pruning '{text}': {key} must be a number, not '{value}'") from None
        outside = {key: found.pop(key) for key in ("start_layer", "method") if key in found}
        return replace(self, selection=replace(self.selection, **found), **outside)

    def multiply_adds(self, host: Host, num_tokens: int) -> int:
        """Return what choosing costs for one image of ``num_tokens``: projections, attention rows, cosines."""
        head_width = host.width // host.heads(host.parts(host.blocks[0])[1])
        return self.chooser.multiply_adds(BlockSize(num_tokens, host.width, head_width), self.selection)


@dataclass
class PruningRecord:
    """Record of the latest forward pass: ``kept`` (B, K) ascending (None where tokens were merged), and T before."""

    kept: Tensor | None = None
    tokens_before: int | None = None


@dataclass
class _Pruner:
    """The hooks of one context."""

    host: Host
    pruning: Pruning
    record: PruningRecord = field(default_factory=PruningRecord)

    def start(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Choose and gather tokens, and the mask, before the first pruned block."""
        tokens_BTD = self.host.tokens_in(args[0])
        count = tokens_BTD.shape[1]
        self.pruning.selection.check(count)
        positions = self.host.received(block, args, kwargs)
        kept_BKD, kept_BK = reduce_tokens(self.host, block, self.pruning, tokens_BTD, positions)
        self.record.kept, self.record.tokens_before = kept_BK, count
        return self.follow(block, (self.host.tokens_out(kept_BKD), *args[1:]), kwargs)

    def follow(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Gather mask and positions, where there are any, before every later block."""
        positions = self.host.received(block, args, kwargs)
        count = self.record.tokens_before
        if positions.are_none or self.record.kept is None or count is None:
            return args, kwargs
        return self.host.handed(block, args, kwargs, positions.of(self.record.kept, self.host.prefix.count, count))

    def release(self, block: nn.Module, *_: Any) -> None:
        """Undo after a block what was done before it."""
        self.host.release(block)


def reduce_tokens(
    host: Host, block: nn.Module, pruning: Pruning, tokens_BTD: Tensor, positions: Positions
) -> tuple[Tensor, Tensor | None]:
    """Return the tokens (B, K, D) that ``block`` is given, in their own order, and their indices (None: merged).

    Raises:
        InputError: a mask or positions inside attention, which the method cannot take.
    """
    if not pruning.chooser.takes_mask and not positions.are_none:
        raise InputError(
            f"pruning.method '{pruning.method}' cannot take an attention mask, nor positions inside attention "
            "(valid: a method that keeps tokens as they are, such as importance_diversity)"
        )
    with torch.no_grad():
        source = host.attention_input(block, tokens_BTD, positions)
    return pruning.chooser.reduce(source, tokens_BTD, pruning.selection)


class Choice(nn.Module):
    """The choice of tokens before one block as a module of its own, for the compute ledger to trace."""

    def __init__(self, host: Host, block: nn.Module, pruning: Pruning) -> None:
        super().__init__()
        self.host, self.block, self.pruning = host, block, pruning

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Return the tokens (B, K, D) that go on."""
        positions = self.host.positions()[self.pruning.start_layer]
        return reduce_tokens(self.host, self.block, self.pruning, tokens_BTD, positions)[0]


class KeptBlock(nn.Module):
    """A block on its first K tokens as a module of its own, for the compute ledger to trace."""

    def __init__(self, host: Host, index: int) -> None:
        super().__init__()
        self.host, self.index, self.block = host, index, host.blocks[index]

    def forward(self, tokens_BKD: Tensor) -> Tensor:
        """Return what leaves the block (B, K, D)."""
        kept_BK = torch.arange(tokens_BKD.shape[1], device=tokens_BKD.device).expand(len(tokens_BKD), -1)
        positions = self.host.positions()[self.index].of(kept_BK, self.host.prefix.count, self.host.num_tokens)
        return self.host.run(self.block, tokens_BKD, positions)


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
        model: anything ``transformer_hosts.host_of`` knows; a whole open_clip model is pruned in its vision tower.
        k_anchors, top_m, alpha, direction, normalize: see ``token_selection.Selection``.
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
def pruned_by(model: nn.Module, pruning: Pruning | None) -> Iterator[PruningRecord]:
    """``pruned`` with a complete setting; None prunes nothing."""
    if pruning is None:
        yield PruningRecord()
        return
    host = host_of(model)
    pruner = _Pruner(host, pruning.on(host))
    with ExitStack() as hooks:
        for index, block in enumerate(host.blocks[pruning.start_layer :]):
            hook = pruner.follow if index else pruner.start
            hooks.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
            hooks.callback(block.register_forward_hook(pruner.release, always_call=True).remove)
        hooks.callback(_forget_compiled)
        _forget_compiled()
        yield pruner.record


def _forget_compiled() -> None:
    """Force compiled models to compile again: code compiled earlier ignores hooks added or removed since."""
    if "torch._dynamo" in sys.modules:  # else nothing was compiled, and it takes a second to import
        torch.compiler.reset()
