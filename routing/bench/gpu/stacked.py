"""Several seeds of one configuration trained as one stack of weights (``torch.func``) against one after another.

The stack is of the transformer: batch norm keeps statistics in place, which ``vmap`` cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from routing.bench.gpu.sizes import Sizes, family
from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, ratio
from routing.evaluation.interleaved import interleaved

RATE = 0.01
COLUMNS = {
    "device": "device",
    "seeds": "seeds",
    "batch": "batch",
    "ratio": "faster than one by one, times",
    **BAND_COLUMNS,
}


def bench(sizes: Sizes, device: str) -> list[BenchTable]:
    """Return one table: a row per number of seeds."""
    rows = [compare(count, sizes, device) for count in sizes.processes if count > 1]
    return [BenchTable("seeds stacked with torch.func: a step of plain SGD of vit", COLUMNS, rows)]


def compare(seeds: int, sizes: Sizes, device: str) -> dict[str, Any]:
    """Return how many times faster a step of all seeds at once is than a step of each."""
    one_by_one, at_once = steps(seeds, sizes.batch, device)
    seconds = interleaved({"one by one": one_by_one, "at once": at_once}, sizes.rounds)
    return {"device": device, "seeds": seeds, "batch": sizes.batch} | ratio(
        seconds["one by one"], seconds["at once"]
    ).row()


def steps(seeds: int, batch: int, device: str) -> tuple[Callable[[], list[Tensor]], Callable[[], list[Tensor]]]:
    """Return a step of each seed in turn, and one of all; both return the head's weights of every seed.

    Both start from the same weights and see the same images.
    """
    from torch.func import functional_call, grad, stack_module_state, vmap

    torch.manual_seed(0)
    models = [family("vit", device, **{"model.dropout": 0.0})[1] for _ in range(seeds)]
    for model in models:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    images = torch.randn(batch, 3, 32, 32, device=device)
    targets = torch.randint(0, 10, (batch,), device=device)
    parameters, buffers = stack_module_state(models)
    stack = {name: value.detach() for name, value in parameters.items()}

    def loss(weights: dict[str, Tensor], kept: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(models[0], (weights, kept), (images,)).prediction, targets)

    def one_by_one() -> list[Tensor]:
        for model in models:
            found = torch.autograd.grad(F.cross_entropy(model(images).prediction, targets), [*model.parameters()])
            with torch.no_grad():
                torch._foreach_sub_([*model.parameters()], torch._foreach_mul(found, RATE))
        return [model.core.head.weight.detach() for model in models]

    def at_once() -> list[Tensor]:
        found = vmap(grad(loss))(stack, buffers)
        torch._foreach_sub_([*stack.values()], torch._foreach_mul([found[name] for name in stack], RATE))
        return list(stack["core.head.weight"])

    return one_by_one, at_once
