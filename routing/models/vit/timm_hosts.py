"""timm's plain transformers as hosts: ``VisionTransformer``, ``Eva`` (rotary positions), ``Beit`` (relative bias).

Shapes: B images, H heads, T tokens, P of them before the patches, R rows, D width, E = D / H.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.vit.host import Host, SdpaMasksHost, branch, child, is_instance, linear_multiply_adds
from routing.models.vit.positions import Positions, Prefix, rope_of

_VIT, _EVA, _BEIT = (f"timm.models.{name}" for name in ("vision_transformer", "eva", "beit"))

_OWN_BIAS = "_get_rel_pos_bias"
"""The method of timm's BEiT attention that gives its relative position bias (1, H, T, T)."""

_WINDOWS = "attention inside windows of the image: a dropped token would leave a hole in its window"
_PYRAMID = "a pyramid of token maps, which its stages shrink: a dropped token would leave a hole in the map"
REFUSED = {
    **dict.fromkeys(
        ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr", "maxxvit", "gcvit"), _WINDOWS
    ),
    **dict.fromkeys(("vision_transformer_sam", "davit", "nest", "tiny_vit", "twins", "hieradet_sam2"), _WINDOWS),
    **dict.fromkeys(("hiera", "mvitv2", "pvt_v2", "pit", "levit", "coat", "focalnet", "nextvit", "volo"), _PYRAMID),
    **dict.fromkeys(("vitamin", "fastvit", "metaformer", "efficientvit_mit", "efficientvit_msra"), _PYRAMID),
    **dict.fromkeys(("efficientformer", "efficientformer_v2", "mobilevit", "edgenext", "visformer"), _PYRAMID),
    "xcit": "attention between channels, which has no row per token",
    "cait": "attention that mixes its heads before and after the softmax",
    "crossvit": "two branches with tokens of two sizes",
    "tnt": "a second transformer inside every patch",
    "convit": "gated attention of its own to positions",
}
"""timm's modules of transformers that cannot run on some of their tokens, and the reason."""


class TimmHost(SdpaMasksHost):
    """timm's ``VisionTransformer``, with its default blocks or those with a norm after attention."""

    attentions: tuple[tuple[str, str], ...] = ((_VIT, "Attention"),)
    plain_blocks: tuple[str, ...] = ("Block",)
    post_norm_blocks: tuple[str, ...] = ("ResPostBlock",)
    module = _VIT
    out_branch = ("proj", "proj_drop")
    attention_branch = ("gamma_1", "ls1", "drop_path1")
    mlp_branch = ("norm2", "mlp", "gamma_2", "ls2", "drop_path2")

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.blocks = list(child(model, "blocks").children())
        if not all(self._known(block) for block in self.blocks):
            raise InputError(
                f"this timm model has blocks of another kind: {type(self.blocks[0]).__name__} (valid: timm's "
                f"{self.plain_blocks[0]} with one query, key and value per head of width D / H)"
            )
        rows, columns = child(model, "patch_embed").grid_size
        self.grid = (int(rows), int(columns))
        self.prefix = Prefix(int(model.num_prefix_tokens), getattr(model, "cls_token", None) is not None)

    def _known(self, block: nn.Module) -> bool:
        if not is_instance(block, self.module, *self.plain_blocks, *self.post_norm_blocks):
            return False
        attention = child(block, "attn")
        if not any(is_instance(attention, module, name) for module, name in self.attentions):
            return False
        if getattr(attention, "qkv", None) is None:
            return getattr(attention, "num_kv_groups", 1) == 1
        return bool(attention.qkv.out_features == 3 * attention.qkv.in_features)

    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """``norm1`` and ``attn``; where the norm follows attention, none comes before it."""
        is_behind = is_instance(block, self.module, *self.post_norm_blocks)
        return nn.Identity() if is_behind else child(block, "norm1"), child(block, "attn")

    def in_projection(self, attention: nn.Module) -> tuple[Tensor, Tensor | None]:
        """``qkv``; its bias may be kept apart, and so may its three parts."""
        if getattr(attention, "qkv", None) is None:
            layers = [attention.q_proj, attention.k_proj, attention.v_proj]
            biases = [
                layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers
            ]
            return torch.cat([layer.weight for layer in layers]), torch.cat(biases)
        if getattr(attention, "q_bias", None) is not None:
            return attention.qkv.weight, torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        return attention.qkv.weight, attention.qkv.bias

    @property
    def projection_multiply_adds(self) -> int:
        """All linear layers of attention, a gate among them."""
        return linear_multiply_adds(self.parts(self.blocks[0])[1])

    def normed_head(self, attention: nn.Module, values_BHRE: Tensor, index: int) -> Tensor:
        """Attention may normalise queries and keys."""
        norm = getattr(attention, ("q_norm", "k_norm")[index], None)
        return values_BHRE if norm is None else norm(values_BHRE)

    def attention_output(self, attention: nn.Module, normed_BTD: Tensor, mixed_BHTE: Tensor) -> Tensor:
        """Attention may have a norm and a gate before its projection."""
        gate = getattr(attention, "gate", None)
        mixed_BTD = branch(attention, ("norm",), mixed_BHTE.transpose(1, 2).flatten(2))
        return branch(attention, self.out_branch, mixed_BTD if gate is None else mixed_BTD * gate(normed_BTD).sigmoid())

    def branches(self, block: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Where the norms follow attention and MLP, they do so inside their branches."""
        if not is_instance(block, self.module, *self.post_norm_blocks):
            return super().branches(block)
        return ("norm1", "drop_path1"), ("mlp", "norm2", "drop_path2")

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, T, D) that enter the first block."""
        model = self.model
        tokens_BTD: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
        return tokens_BTD


class EvaHost(TimmHost):
    """timm's ``Eva`` (EVA, EVA-02, DINOv3, Perception Encoder): rotary positions are handed to every block."""

    attentions = ((_EVA, "EvaAttention"), (_EVA, "AttentionRope"))
    plain_blocks = ("EvaBlock",)
    post_norm_blocks = ("EvaBlockPostNorm",)
    module = _EVA

    def positions(self) -> list[Positions]:
        """Those of the model, or of every block where they are learned."""
        rope = self.model.rope
        if rope is None:
            return super().positions()
        is_cached = getattr(rope, "feat_shape", None) is not None
        given = rope.get_embed() if is_cached else rope.get_embed(shape=self.grid)
        return [Positions(rope=each) for each in (given if self.model.rope_mixed else [given] * self.depth)]

    def received(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Positions:
        """``rope`` and ``attn_mask``."""
        mask = kwargs.get("attn_mask")
        return Positions(kwargs.get("rope"), None if mask is None else self.mask_in(mask, 0))

    def handed(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], positions: Positions
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``rope`` and ``attn_mask``."""
        return args, {**kwargs, "rope": positions.rope, "attn_mask": positions.bias}

    def rotated(
        self, attention: nn.Module, values_BHRE: Tensor, positions: Positions, rows_BR: Tensor | None
    ) -> Tensor:
        """Rotate all but the prefix, as the attention of the block does."""
        if positions.rope is None:
            return values_BHRE
        from timm.layers import apply_rot_embed_cat

        first, is_half = self.prefix.count, bool(getattr(attention, "rotate_half", False))
        if rows_BR is None:
            patches = apply_rot_embed_cat(values_BHRE[:, :, first:], positions.rope, half=is_half)
            return torch.cat([values_BHRE[:, :, :first], patches], dim=2).type_as(values_BHRE)
        rope = rope_of(positions.rope, (rows_BR - first).clamp(min=0))
        turned = apply_rot_embed_cat(values_BHRE, rope, half=is_half)
        return torch.where((rows_BR < first)[:, None, :, None], values_BHRE, turned).type_as(values_BHRE)

    def embed(self, images: Tensor) -> Tensor:
        """Patches, prefix, positions that are added."""
        model = self.model
        tokens_BTD: Tensor = model.norm_pre(model._pos_embed(model.patch_embed(images))[0])
        return tokens_BTD


class BeitHost(TimmHost):
    """timm's ``Beit``: a relative position bias of every block, or one of all, is added to the attention logits.

    While a block runs on kept tokens, its own bias is that of these tokens.
    """

    attentions = ((_BEIT, "Attention"),)
    post_norm_blocks = ()
    module = _BEIT

    def positions(self) -> list[Positions]:
        """The bias of every block, that of the model added."""
        shared = None if self.model.rel_pos_bias is None else self.model.rel_pos_bias()
        return [self.received(block, (), {"shared_rel_pos_bias": shared}) for block in self.blocks]

    def received(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Positions:
        """``shared_rel_pos_bias`` and the block's own."""
        shared, attention = kwargs.get("shared_rel_pos_bias"), child(block, "attn")
        if attention.relative_position_bias_table is None:
            return Positions(bias=shared)
        own = getattr(attention, _OWN_BIAS)()
        return Positions(bias=own if shared is None else own + shared)

    def handed(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], positions: Positions
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """As the shared bias; a block with a bias of its own gets the sum in its place."""
        attention = child(block, "attn")
        if attention.relative_position_bias_table is None:
            return args, {**kwargs, "shared_rel_pos_bias": positions.bias}
        attention.__dict__[_OWN_BIAS] = lambda: positions.bias
        return args, {**kwargs, "shared_rel_pos_bias": None}

    def release(self, block: nn.Module) -> None:
        """Give the attention its own bias back."""
        child(block, "attn").__dict__.pop(_OWN_BIAS, None)

    def embed(self, images: Tensor) -> Tensor:
        """Patches, class token, positions that are added, if any."""
        model = self.model
        patches_BND = model.patch_embed(images)
        tokens_BTD = torch.cat([model.cls_token.expand(len(patches_BND), -1, -1), patches_BND], dim=1)
        embedded: Tensor = model.pos_drop(tokens_BTD if model.pos_embed is None else tokens_BTD + model.pos_embed)
        return embedded


_HOSTS: tuple[tuple[str, str, type[TimmHost]], ...] = (
    (_VIT, "VisionTransformer", TimmHost),
    (_EVA, "Eva", EvaHost),
    (_BEIT, "Beit", BeitHost),
)


def timm_host(model: nn.Module) -> Host | None:
    """Return the adapter of a model of timm; None where it is of another library.

    Raises:
        InputError: a transformer of timm that cannot run on some of its tokens.
    """
    package, _, module = type(model).__module__.rpartition(".")
    if package == "timm.models" and module in REFUSED:
        raise InputError(f"{type(model).__name__}: {REFUSED[module]} (valid: a plain vision transformer)")
    return next((host(model) for path, name, host in _HOSTS if is_instance(model, path, name)), None)
