"""The closed form of networks that are not this project's own: layer by layer, without data."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def on_meta(module: nn.Module) -> nn.Module:
    """Return a copy without data, whose forward pass costs nothing."""
    return copy.deepcopy(module).to("meta").eval()


def multiply_adds(module: nn.Module, shape_in: tuple[int, ...]) -> int:
    """Return the multiply-adds of one image: per convolution and linear layer, outputs times inputs of each.

    A network with products outside of such layers (attention, relative positions) has no formula here; its closed form
    is then what ``torch.utils.flop_counter`` sees in it on these shapes, halved.

    Args:
        shape_in: of one image or map, without the batch.
    """
    from torch.utils.flop_counter import FlopCounterMode

    layers = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal layers
        if isinstance(layer, nn.Conv2d):
            layers += output.numel() * layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
        elif isinstance(layer, nn.Linear):
            layers += output.numel() * layer.in_features

    copied = on_meta(module)
    for layer in copied.modules():
        layer.register_forward_hook(add)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a fused encoder layer hides its products
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            copied(torch.zeros(1, *shape_in, device="meta"))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    counted = counter.get_total_flops() // 2
    return layers if layers == counted else counted
