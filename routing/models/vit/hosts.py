"""One adapter per host model: where its blocks are, how a block projects, and what it costs.

Token pruning and attention analysis know models only through a ``Host``. Hosts: this project's ``VisionTransformer``,
torchvision's and timm's ``VisionTransformer``, open_clip's vision tower (or a whole open_clip model, whose tower is
taken).

Shapes: B images, H heads, T tokens (CLS is token 0), R rows, D width, E = D / H.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.attention import SelfAttention
from routing.models.vit.network import VisionTransformer
from routing.models.vit.token_selection import AttentionInput

_TIMM = "timm.models.vision_transformer"


class Host(ABC):
    """A transformer with a CLS token, seen by pruning and analysis.

    blocks: in order. num_tokens: T of one image, CLS included. grid: patches (rows, columns).
    """

    blocks: Sequence[nn.Module]
    num_tokens: int
    grid: tuple[int, int]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def mlp_multiply_adds(self) -> int:
        """Multiply-adds of a block's MLP for one token: 2 D M for a hidden width of M, more where it is gated."""
        linear = [module for module in _child(self.blocks[0], "mlp").modules() if isinstance(module, nn.Linear)]
        return sum(layer.in_features * layer.out_features for layer in linear)

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

    def attention_input(self, block: nn.Module, tokens_BTD: Tensor, bias: Tensor | None) -> AttentionInput:
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
            width = normed_BTD.shape[2]
            return project(normed_BTD.gather(1, rows_BR[..., None].expand(-1, -1, width)), 0)

        return AttentionInput(normed_BTD, lambda: project(normed_BTD, 1), queries, bias)

    def normed_head(self, attention: nn.Module, values_BHRE: Tensor, index: int) -> Tensor:
        """Return queries (index 0) or keys (index 1) after the host's own normalisation, if it has one."""
        return values_BHRE


class _SdpaMasks(Host):
    """A host whose blocks hand their mask to ``scaled_dot_product_attention``."""

    def mask_in(self, mask: Tensor, heads: int) -> Tensor:
        """SDPA's meaning: True attends; broadcastable to (B, H, T, T)."""
        bias = _as_bias(mask, hidden=~mask if mask.dtype == torch.bool else None)
        return bias[(None,) * (4 - bias.ndim)]

    def mask_out(self, bias: Tensor, heads: int) -> Tensor:
        """As it is."""
        return bias


class OwnHost(_SdpaMasks):
    """This project's ``VisionTransformer``."""

    def __init__(self, model: VisionTransformer) -> None:
        self.blocks = list(model.blocks)
        self.num_tokens = model.num_tokens
        self.grid = (model.grid, model.grid)

    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """``norm_1`` and ``attention``."""
        return _child(block, "norm_1"), _child(block, "attention")

    def heads(self, attention: nn.Module) -> int:
        """H."""
        assert isinstance(attention, SelfAttention)
        return attention.heads

    def in_projection(self, attention: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The one linear layer."""
        assert isinstance(attention, SelfAttention)
        return attention.in_proj.weight, attention.in_proj.bias


class TorchvisionHost(Host):
    """``torchvision.models.VisionTransformer``."""

    def __init__(self, model: nn.Module) -> None:
        self.blocks = list(_child(_child(model, "encoder"), "layers").children())
        self.num_tokens = int(model.seq_length)
        side = int(model.image_size) // int(model.patch_size)
        self.grid = (side, side)

    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """``ln_1`` and ``self_attention``."""
        return _child(block, "ln_1"), _child(block, "self_attention")


class TimmHost(_SdpaMasks):
    """timm's ``VisionTransformer``, with its default blocks and attention."""

    def __init__(self, model: nn.Module) -> None:
        self.blocks = list(_child(model, "blocks").children())
        if not model.has_class_token or model.num_prefix_tokens != 1:
            raise InputError(
                f"this timm model has {model.num_prefix_tokens} tokens before its patches (valid: a class token alone)"
            )
        if not all(_is_timm_block(block) for block in self.blocks):
            raise InputError("this timm model has blocks of another kind (valid: timm's Block with its Attention)")
        rows, columns = _child(model, "patch_embed").grid_size
        self.grid = (int(rows), int(columns))
        self.num_tokens = 1 + self.grid[0] * self.grid[1]

    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """``norm1`` and ``attn``."""
        return _child(block, "norm1"), _child(block, "attn")

    def in_projection(self, attention: nn.Module) -> tuple[Tensor, Tensor | None]:
        """``qkv``."""
        return attention.qkv.weight, attention.qkv.bias

    def normed_head(self, attention: nn.Module, values_BHRE: Tensor, index: int) -> Tensor:
        """Attention may normalise queries and keys."""
        normed: Tensor = _child(attention, ("q_norm", "k_norm")[index])(values_BHRE)
        return normed


class OpenClipHost(Host):
    """open_clip's ``VisionTransformer``, with its default or its custom blocks."""

    def __init__(self, model: nn.Module) -> None:
        transformer = _child(model, "transformer")
        self.blocks = list(_child(transformer, "resblocks").children())
        self.batch_first = bool(getattr(transformer, "batch_first", True))
        rows, columns = model.grid_size
        self.grid = (int(rows), int(columns))
        self.num_tokens = 1 + self.grid[0] * self.grid[1]
        scaled = [block for block in self.blocks if getattr(_child(block, "attn"), "logit_scale", None) is not None]
        if scaled:
            raise InputError("this open_clip model uses scaled cosine attention, which token pruning does not know")

    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """``ln_1`` and ``attn``."""
        return _child(block, "ln_1"), _child(block, "attn")

    def tokens_in(self, value: Tensor) -> Tensor:
        """Blocks of older models take (T, B, D)."""
        return value if self.batch_first else value.transpose(0, 1)

    def tokens_out(self, tokens_BTD: Tensor) -> Tensor:
        """Swapping back is the same."""
        return self.tokens_in(tokens_BTD)

    def normed_head(self, attention: nn.Module, values_BHRE: Tensor, index: int) -> Tensor:
        """Custom attention may normalise queries and keys."""
        norm = getattr(attention, ("ln_q", "ln_k")[index], None)
        return values_BHRE if norm is None else norm(values_BHRE)


def host_of(model: nn.Module) -> Host:
    """Return the adapter of a model.

    Raises:
        InputError: no adapter for it, or it has no CLS token.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if isinstance(model, VisionTransformer):
        return OwnHost(model)
    if _is_instance(model, "torchvision.models.vision_transformer", "VisionTransformer"):
        return TorchvisionHost(model)
    if _is_instance(model, _TIMM, "VisionTransformer"):
        return TimmHost(model)
    tower = getattr(model, "visual", model)
    if _is_instance(tower, "open_clip.transformer", "VisionTransformer"):
        return OpenClipHost(tower)
    raise InputError(
        f"{type(tower).__name__}: token pruning and attention maps need a vision transformer with a CLS token "
        "(valid: this project's vit, torchvision's or timm's VisionTransformer, open_clip's VisionTransformer tower)"
    )


def _is_timm_block(block: nn.Module) -> bool:
    if not (_is_instance(block, _TIMM, "Block") and _is_instance(_child(block, "attn"), _TIMM, "Attention")):
        return False
    projection = _child(block, "attn").qkv
    return bool(projection.out_features == 3 * projection.in_features)


def _is_instance(model: object, module: str, name: str) -> bool:
    """Return whether ``model`` is of that class; a module that is not loaded yet is not imported for it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(model, getattr(loaded, name))


def _child(module: nn.Module, name: str) -> nn.Module:
    child = getattr(module, name)
    assert isinstance(child, nn.Module)
    return child


def _as_bias(mask: Tensor, hidden: Tensor | None) -> Tensor:
    if hidden is None:
        return mask.float()
    return torch.zeros(mask.shape, device=mask.device).masked_fill(hidden, -torch.inf)
