"""A foreign network cut into stages: wherever one map alone goes on, the last one of each resolution.

The graph is traced once (torch.fx) without data; its pieces share the modules of the network. Layers without children
and norms stay whole, so that what differs between training and evaluation stays inside them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from routing.errors import InputError
from routing.models.chain import Chain, Stage
from routing.models.formula import multiply_adds, on_meta
from routing.models.pretrained import one_line


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, nn.modules.batchnorm._NormBase) or not any(True for _ in m.children())
        return whole or super().is_leaf_module(m, module_qualified_name)


def cut(network: nn.Module, shape_in: tuple[int, ...], name: str) -> Chain:
    """Return a network as a chain: stages end where a resolution ends, the head is what follows the coarsest.

    Args:
        shape_in: of the image, (C, S, S).
        name: of the network, for errors.

    Raises:
        InputError: the network cannot be traced, or no single map goes on anywhere inside it.
    """
    try:
        graph = _Tracer().trace(network)
        module = fx.GraphModule(network, graph)
        shapes = _shapes(module, shape_in)
    except Exception as error:  # tracing foreign code raises anything
        raise InputError(
            f"'{name}' cannot be cut into stages: torch.fx does not follow it ({one_line(error)})"
        ) from None
    nodes = list(module.graph.nodes)
    ends = _ends(nodes, shapes)
    if len(ends) < 2:
        raise InputError(f"'{name}' cannot be cut into stages: at {shape_in[1]} pixels it has {len(ends)} of them")
    return _chain(network, nodes, ends, shapes, shape_in)


def _shapes(module: fx.GraphModule, shape_in: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shape, without the batch, of every node that is one tensor."""
    copied = on_meta(module)
    assert isinstance(copied, fx.GraphModule)
    found: dict[str, tuple[int, ...]] = {}

    class Record(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                found[n.name] = tuple(value.shape[1:])
            return value

    with torch.no_grad():
        Record(copied).run(torch.zeros(1, *shape_in, device="meta"))
    return found


def _ends(nodes: Sequence[fx.Node], shapes: dict[str, tuple[int, ...]]) -> list[fx.Node]:
    """Return the last node of each resolution above 1 x 1 after which it alone is still needed, coarsest last."""
    place = {node: index for index, node in enumerate(nodes)}
    ends: dict[int, fx.Node] = {}
    furthest, smallest = -1, shapes[nodes[0].name][1]
    for index, node in enumerate(nodes):
        if node.op == "get_attr":  # a weight, which every piece can have
            continue
        shape = shapes.get(node.name, ())
        is_map = len(shape) == 3 and shape[1] == shape[2] > 1 and node.op != "placeholder"
        if is_map and shape[1] > smallest:  # pooled up for a classifier of fixed size: part of the head
            break
        if furthest <= index and is_map:
            smallest = shape[1]
            ends[smallest] = node
        furthest = max([furthest, *(place[user] for user in node.users)])
    return [ends[side] for side in sorted(ends, reverse=True)]


def _chain(
    network: nn.Module,
    nodes: Sequence[fx.Node],
    ends: Sequence[fx.Node],
    shapes: dict[str, tuple[int, ...]],
    shape_in: tuple[int, ...],
) -> Chain:
    links: list[Stage] = []
    result = nodes[-1].args[0]
    assert isinstance(result, fx.Node)
    first = nodes[0]
    for last in (*ends, result):
        piece = _piece(network, nodes, first, last)
        links.append(Stage(piece, shape_in, shapes[last.name], multiply_adds(piece, shape_in)))
        first, shape_in = last, shapes[last.name]
    return Chain(tuple(links[:-1]), links[-1])


def _piece(network: nn.Module, nodes: Sequence[fx.Node], first: fx.Node, last: fx.Node) -> fx.GraphModule:
    """Return what leads from the value of ``first`` to that of ``last``; its modules are the network's own."""
    graph = fx.Graph()
    values = {first: graph.placeholder("features")}

    def value_of(node: fx.Node) -> fx.Node:
        if node.op == "get_attr" and node not in values:
            values[node] = graph.node_copy(node)
        return values[node]

    for node in nodes[nodes.index(first) + 1 : nodes.index(last) + 1]:
        if node.op != "get_attr":
            for used in node.all_input_nodes:
                value_of(used)
            values[node] = graph.node_copy(node, value_of)
    graph.output(values[last])
    return fx.GraphModule(network, graph)
