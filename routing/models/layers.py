"""Which parameters of a network belong together, from input to output: parts that a phase trains, layers of a decay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

Part = list[nn.Module | nn.Parameter]
Layer = list[nn.Parameter]


def around_blocks(network: nn.Module, blocks: Sequence[nn.Module]) -> dict[str, Part]:
    """Return ``embedding``, ``blocks`` and ``head``: what is declared before the blocks, these, the rest.

    Parameters of a module that holds the blocks count as before them (class token, positions).
    """
    found: dict[str, Part] = {"embedding": [], "blocks": list(blocks), "head": []}
    inside = {id(module) for module in blocks}
    _sort(network, inside, found, "embedding")
    return found


def _sort(module: nn.Module, inside: set[int], found: dict[str, Part], side: str) -> str:
    found[side].extend(module.parameters(recurse=False))
    for child in module.children():
        if id(child) in inside:
            side = "head"
        elif any(id(below) in inside for below in child.modules()):
            side = _sort(child, inside, found, side)
        else:
            found[side].append(child)
    return side


def parameters_of(part: Sequence[nn.Module | nn.Parameter]) -> Iterator[nn.Parameter]:
    """Yield every parameter of a part."""
    for item in part:
        if isinstance(item, nn.Module):
            yield from item.parameters()
        else:
            yield item


def in_order(network: nn.Module) -> list[Layer]:
    """Return the parameters of every layer of a network whose modules are declared in the order they run.

    A layer is what a sequence or a list of modules holds; a norm of its own belongs to the layer before.
    """
    layers: list[Layer] = []
    own = list(network.parameters(recurse=False))
    if own:
        layers.append(own)
    _add_layers(network, layers)
    return layers


def then_the_rest(layers: Sequence[Layer], network: nn.Module) -> list[Layer]:
    """Return the layers, and as one more all other parameters of the network."""
    inside = {id(parameter) for layer in layers for parameter in layer}
    return [*layers, [parameter for parameter in network.parameters() if id(parameter) not in inside]]


def _add_layers(module: nn.Module, layers: list[Layer]) -> None:
    for child in module.children():
        parameters = list(child.parameters())
        if isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            _add_layers(child, layers)
        elif layers and all(parameter.ndim <= 1 for parameter in parameters):
            layers[-1].extend(parameters)
        elif parameters:
            layers.append(parameters)
