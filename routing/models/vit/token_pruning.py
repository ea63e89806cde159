"""Token pruning of a trained vision transformer: from one block on, every image keeps only its best tokens.

    with pruned(model, k_anchors=10, top_m=50, alpha=0.5, start_layer=1) as record:
        logits = model(images)

The tokens are chosen by the norm and the keys of block ``start_layer`` (blocks count from 0) and its queries of CLS and
the anchors. That block and all later ones then run on the kept tokens alone, in their own order, so that keeping all
changes no bit. No module of the model is replaced: hooks are added and removed with the context. A compiled model is
compiled again at its first call inside the context, and at the first one after it.

Shapes: B images, T tokens (CLS is token 0), K kept, D width.
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
        heads = self.host.heads(self.host.parts(block)[1])
        mask = _find_mask(args, kwargs)
        bias = None if mask is None else self.host.mask_in(mask, heads)
        if mask is not None and not self.pruning.chooser.takes_mask:
            method = self.pruning.method
            raise InputError(f"pruning.method '{method}' cannot take an attention mask (valid: one that can)")
        kept_BKD, kept_BK = reduce_tokens(self.host, block, self.pruning, tokens_BTD, bias)
        self.record.kept, self.record.tokens_before = kept_BK, count
        return self.follow(block, (self.host.tokens_out(kept_BKD), *args[1:]), kwargs)

    def follow(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Gather the mask, where there is one, before every later block."""
        mask = _find_mask(args, kwargs)
        if mask is None or self.record.kept is None:
            return args, kwargs
        heads = self.host.heads(self.host.parts(block)[1])
        kept = self.host.mask_out(_gather_bias(self.host.mask_in(mask, heads), self.record), heads)
        return tuple(kept if value is mask else value for value in args), {
            key: kept if value is mask else value for key, value in kwargs.items()
        }


def reduce_tokens(
    host: Host, block: nn.Module, pruning: Pruning, tokens_BTD: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the tokens (B, K, D) that ``block`` is given, in their own order, and their indices (None: merged)."""
    with torch.no_grad():
        source = host.attention_input(block, tokens_BTD, bias)
    return pruning.chooser.reduce(source, tokens_BTD, pruning.selection)


class Choice(nn.Module):
    """The choice of tokens before one block as a module of its own, for the compute ledger to trace."""

    def __init__(self, host: Host, block: nn.Module, pruning: Pruning) -> None:
        super().__init__()
        self.host, self.block, self.pruning = host, block, pruning

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Return the tokens (B, K, D) that go on."""
        return reduce_tokens(self.host, self.block, self.pruning, tokens_BTD)[0]


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
        InputError: a value out of range, more tokens kept than there are, or a model without a CLS token.
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
    pruning.check(host.num_tokens, host.depth)
    pruner = _Pruner(host, pruning)
    with ExitStack() as hooks:
        for index, block in enumerate(host.blocks[pruning.start_layer :]):
            hook = pruner.follow if index else pruner.start
            hooks.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
        hooks.callback(_forget_compiled)
        _forget_compiled()
        yield pruner.record


def _forget_compiled() -> None:
    """Force compiled models to compile again: code compiled earlier ignores hooks added or removed since."""
    if "torch._dynamo" in sys.modules:  # else nothing was compiled, and it takes a second to import
        torch.compiler.reset()


def _find_mask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the only tensor beside the tokens that a block is given."""
    return next((value for value in (*args[1:], *kwargs.values()) if isinstance(value, Tensor)), None)


def _gather_bias(bias: Tensor, record: PruningRecord) -> Tensor:
    """Return the rows and columns (B, H or 1, K, K) of the kept tokens."""
    kept_BK = record.kept
    assert kept_BK is not None
    if bias.shape[3] != record.tokens_before:
        raise InputError(
            f"token pruning: the attention mask is for {bias.shape[3]} tokens, but {record.tokens_before} were there"
        )
    batch, count = kept_BK.shape
    bias = bias.expand(batch, *bias.shape[1:])
    if bias.shape[2] > 1:
        bias = bias.gather(2, kept_BK[:, None, :, None].expand(-1, bias.shape[1], -1, bias.shape[3]))
    return bias.gather(3, kept_BK[:, None, None].expand(-1, bias.shape[1], bias.shape[2], -1)).expand(-1, -1, count, -1)
