"""The interface between a host model and token pruning: where its blocks are, how one projects, and what it costs.

Shapes: B images, H heads, T tokens, R rows, D width, E = D / H.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.models.attention import rows_at
from routing.models.vit.positions import Positions, Prefix
from routing.models.vit.token_selection import AttentionInput


class Host(ABC):
    """A transformer whose every block sees the same tokens, as pruning and analysis see it.

    blocks: in order. grid: patches (rows, columns). prefix: the tokens before the patches.
    out_branch, attention_branch, mlp_branch: names of what follows the attended values inside attention, of what
        scales the output of attention, and of the MLP with its norm and scale, each in order; names that a block does
        not have are left out. A host without them cannot be reduced inside a block.
    """

    blocks: Sequence[nn.Module]
    grid: tuple[int, int]
    prefix: Prefix = Prefix()
    out_branch: ClassVar[tuple[str, ...]] = ()
    attention_branch: ClassVar[tuple[str, ...]] = ()
    mlp_branch: ClassVar[tuple[str, ...]] = ()

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def num_tokens(self) -> int:
        """T of one image, the prefix included."""
        return self.prefix.count + self.num_patches

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def mlp_multiply_adds(self) -> int:
        """Multiply-adds of a block's MLP for one token: 2 D M for a hidden width of M, more where it is gated."""
        return linear_multiply_adds(child(self.blocks[0], "mlp"))

    @property
    def projection_multiply_adds(self) -> int:
        """Multiply-adds of a block's projections around attention for one token: 4 D^2, more where it is gated."""
        return 4 * self.width**2

    @property
    def width(self) -> int:
        """D."""
        return self.in_projection(self.parts(self.blocks[0])[1])[0].shape[1]

    @abstractmethod
    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Return the norm before attention, and the attention module of a block."""

    def heads(self, attention: nn.Module) -> int:
        """Return H."""
        heads = getattr(attention, "num_heads", None)
        assert isinstance(heads, int)
        return heads

    def in_projection(self, attention: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Return weight (3 D, D) and bias (3 D) of queries, keys and values."""
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        assert isinstance(weight, Tensor)
        return weight, bias if isinstance(bias, Tensor) else None

    def tokens_in(self, value: Tensor) -> Tensor:
        """Return what enters a block as (B, T, D)."""
        return value

    def tokens_out(self, tokens_BTD: Tensor) -> Tensor:
        """Inverse of ``tokens_in``."""
        return tokens_BTD

    def mask_in(self, mask: Tensor, heads: int) -> Tensor:
        """Return a block's attention mask as a bias (B or 1, H or 1, T or 1, T), -inf where nothing is attended.

        The default is ``nn.MultiheadAttention``'s meaning: True is hidden; (T, T) or (B * H, T, T).
        """
        bias = _as_bias(mask, hidden=mask if mask.dtype == torch.bool else None)
        return bias[None, None] if bias.ndim == 2 else bias.view(-1, heads, *bias.shape[1:])

    def mask_out(self, bias: Tensor, heads: int) -> Tensor:
        """Return a bias (B, H or 1, T, T) as this host's blocks take it."""
        return bias.expand(len(bias), heads, *bias.shape[2:]).flatten(0, 1)

    def positions(self) -> list[Positions]:
        """Return what the attention of every block is given beside the tokens, for all tokens of an image."""
        return [Positions()] * self.depth

    def received(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Positions:
        """Return what a call of ``block`` gives its attention beside the tokens."""
        mask = _find_mask(args, kwargs)
        return Positions(bias=None if mask is None else self.mask_in(mask, self.heads(self.parts(block)[1])))

    def handed(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], positions: Positions
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call of ``block`` with other ``positions``; inverse of ``received``."""
        mask = _find_mask(args, kwargs)
        if mask is None or positions.bias is None:
            return args, kwargs
        taken = self.mask_out(positions.bias, self.heads(self.parts(block)[1]))
        return tuple(taken if value is mask else value for value in args), {
            key: taken if value is mask else value for key, value in kwargs.items()
        }

    def release(self, block: nn.Module) -> None:
        """Undo what ``handed`` changed in ``block`` itself, if anything."""
        return

    def run(self, block: nn.Module, tokens_BTD: Tensor, positions: Positions) -> Tensor:
        """Run ``block`` on tokens (B, T, D) with their positions."""
        args, kwargs = self.handed(block, (tokens_BTD,), {}, positions)
        try:
            out: Tensor = block(*args, **kwargs)
        finally:
            self.release(block)
        return out

    def attention_input(self, block: nn.Module, tokens_BTD: Tensor, positions: Positions) -> AttentionInput:
        """Return what the attention of ``block`` sees, with projections to be computed on request."""
        norm, attention = self.parts(block)
        heads = self.heads(attention)
        weight, offset = self.in_projection(attention)
        normed_BTD: Tensor = norm(tokens_BTD)

        def project(values_BRD: Tensor, index: int) -> Tensor:
            part = slice(index * weight.shape[1], (index + 1) * weight.shape[1])
            out = F.linear(values_BRD, weight[part], None if offset is None else offset[part])
            return self.normed_head(attention, out.unflatten(2, (heads, -1)).transpose(1, 2), index)

        def queries(rows_BR: Tensor) -> Tensor:
            rows_BHRE = project(rows_at(normed_BTD, rows_BR), 0)
            return self.rotated(attention, rows_BHRE, positions, rows_BR)

        def keys() -> Tensor:
            return self.rotated(attention, project(normed_BTD, 1), positions, None)

        return AttentionInput(normed_BTD, keys, queries, positions.bias, tokens_BTD.requires_grad)

    def attention_output(self, attention: nn.Module, normed_BTD: Tensor, mixed_BHTE: Tensor) -> Tensor:
        """Return what attention gives (B, T, D) from the attended values of every head."""
        return branch(attention, self.out_branch, mixed_BHTE.transpose(1, 2).flatten(2))

    def branches(self, block: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return ``attention_branch`` and ``mlp_branch`` of a block."""
        return self.attention_branch, self.mlp_branch

    def rotated(
        self, attention: nn.Module, values_BHRE: Tensor, positions: Positions, rows_BR: Tensor | None
    ) -> Tensor:
        """Return the queries of the tokens at ``rows_BR``, or the keys of all (None), with rotary positions, if any."""
        return values_BHRE

    def normed_head(self, attention: nn.Module, values_BHRE: Tensor, index: int) -> Tensor:
        """Return queries (index 0) or keys (index 1) after the host's own normalisation, if it has one."""
        return values_BHRE


class SdpaMasksHost(Host):
    """A host whose blocks hand their mask to ``scaled_dot_product_attention``."""

    def mask_in(self, mask: Tensor, heads: int) -> Tensor:
        """SDPA's meaning: True attends; broadcastable to (B, H, T, T)."""
        bias = _as_bias(mask, hidden=~mask if mask.dtype == torch.bool else None)
        return bias[(None,) * (4 - bias.ndim)]

    def mask_out(self, bias: Tensor, heads: int) -> Tensor:
        """As it is."""
        return bias


def linear_multiply_adds(module: nn.Module) -> int:
    """Return the multiply-adds of all linear layers in ``module`` for one token."""
    return sum(layer.in_features * layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear))


def branch(module: nn.Module, names: Sequence[str], values: Tensor) -> Tensor:
    """Send values through submodules, and scale them by parameters, of these names; absent ones are left out."""
    for name in names:
        part = getattr(module, name, None)
        if isinstance(part, nn.Module):
            values = part(values)
        elif isinstance(part, Tensor):
            values = part * values
    return values


def is_instance(model: object, module: str, *names: str) -> bool:
    """Return whether ``model`` is of one of these classes; a module not loaded yet is not imported for it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(model, tuple(getattr(loaded, name) for name in names))


def child(module: nn.Module, name: str) -> nn.Module:
    """Return the submodule of that name."""
    found = getattr(module, name)
    assert isinstance(found, nn.Module)
    return found


def _as_bias(mask: Tensor, hidden: Tensor | None) -> Tensor:
    if hidden is None:
        return mask.float()
    return torch.zeros(mask.shape, device=mask.device).masked_fill(hidden, -torch.inf)


def _find_mask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the only tensor beside the tokens that a block is given."""
    return next((value for value in (*args[1:], *kwargs.values()) if isinstance(value, Tensor)), None)
