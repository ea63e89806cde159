"""Hugging Face's plain vision transformers as hosts: ``ViTModel``, ``Dinov2Model`` (with registers too), CLIP's tower.

Shapes: B images, T tokens (class and register tokens first), D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from routing.models.vit.host import Host, SdpaMasksHost, child, is_instance
from routing.models.vit.positions import Positions, Prefix

_TOWERS = (
    ("vit", "ViTModel", "layers"),
    ("dinov2", "Dinov2Model", "encoder.layer"),
    ("dinov2_with_registers", "Dinov2WithRegistersModel", "encoder.layer"),
    ("clip", "CLIPVisionModel", "encoder.layers"),
)
"""Modules of transformers, their towers, and where the blocks of one are."""

_NORMS = ("layernorm_before", "norm1", "layer_norm1")
"""Names of the norm before attention."""


class TransformersHost(SdpaMasksHost):
    """A vision tower of transformers; its blocks take tokens and a mask."""

    out_branch = ("o_proj", "out_proj")
    attention_branch = ("dropout", "layer_scale1", "drop_path")
    mlp_branch = ("layernorm_after", "norm2", "layer_norm2", "mlp", "dropout", "layer_scale2", "drop_path")

    def __init__(self, tower: nn.Module, blocks: Sequence[nn.Module]) -> None:
        self.blocks = blocks
        config: Any = tower.config
        rows, columns = (
            side // patch for side, patch in zip(_pair(config.image_size), _pair(config.patch_size), strict=True)
        )
        self.grid = (rows, columns)
        self.prefix = Prefix(1 + int(getattr(config, "num_register_tokens", 0)))

    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The norm before attention, and ``attention`` or ``self_attn``."""
        norm = next(name for name in _NORMS if hasattr(block, name))
        return child(block, norm), child(block, "attention" if hasattr(block, "attention") else "self_attn")

    def heads(self, attention: nn.Module) -> int:
        """H."""
        return int(attention.num_heads if hasattr(attention, "num_heads") else attention.num_attention_heads)

    def in_projection(self, attention: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Three linear layers."""
        layers = [attention.q_proj, attention.k_proj, attention.v_proj]
        weight = torch.cat([layer.weight for layer in layers])
        return weight, None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])

    def handed(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], positions: Positions
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``attention_mask``, None without one."""
        return args[:1], {**kwargs, "attention_mask": positions.bias}


def transformers_host(model: nn.Module) -> Host | None:
    """Return the adapter of a model of transformers, or of the tower inside one; None where it has none of these."""
    if not type(model).__module__.startswith("transformers."):
        return None
    for module in model.modules():
        for package, name, where in _TOWERS:
            if is_instance(module, f"transformers.models.{package}.modeling_{package}", name):
                return TransformersHost(module, list(module.get_submodule(where).children()))
    return None


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return int(value[0]), int(value[1])
    return int(value), int(value)
