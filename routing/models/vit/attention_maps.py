"""Attention of any layer and head on request, equal to what the fused kernel used; normal inference pays nothing.

Shapes: B images, H heads, T tokens (those before the patches first).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.attention import attention_rows
from routing.models.vit.hosts import Host, host_of


@torch.no_grad()
def attention_maps(
    model: nn.Module,
    images: Tensor,
    layers: Iterable[int] | None = None,
    *,
    forward: Callable[[Tensor], Any] | None = None,
) -> dict[int, Tensor]:
    """Run the model and return softmax(q k^T / sqrt(E)) (B, H, T, T), float32, of every asked layer.

    Inside ``pruned`` the later layers have fewer tokens, as they really run.

    Args:
        model: anything ``transformer_hosts.host_of`` knows.
        images: what ``model`` takes.
        layers: indices from 0, negative from the end; None is all.
        forward: how to run the model; by default ``model(images)``.

    Raises:
        InputError: a layer the model does not have, or a model without an adapter.
    """
    host = host_of(model)
    wanted = _layer_indices(layers, host.depth)
    maps: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for index in wanted:
            hook = _capture(host, index, maps)
            hooks.callback(host.blocks[index].register_forward_pre_hook(hook, with_kwargs=True).remove)
        (forward or model)(images)
    return {index: maps[index] for index in wanted}


def _layer_indices(layers: Iterable[int] | None, depth: int) -> list[int]:
    if layers is None:
        return list(range(depth))
    found = []
    for layer in layers:
        if not -depth <= layer < depth:
            raise InputError(f"layer {layer}: the model has {depth} blocks (valid: {-depth} to {depth - 1})")
        found.append(layer % depth)
    return found


def _capture(host: Host, index: int, maps: dict[int, Tensor]) -> Callable[..., None]:
    def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions = host.received(block, args, kwargs)
        tokens_BTD = host.tokens_in(args[0])
        source = host.attention_input(block, tokens_BTD, positions)
        everyone_BT = torch.arange(tokens_BTD.shape[1], device=tokens_BTD.device).expand(len(tokens_BTD), -1)
        maps[index] = attention_rows(source.queries(everyone_BT), source.keys(), source.bias)

    return hook
