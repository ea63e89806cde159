"""Networks without a closed form: what each way of running a batch executes, image by image where images differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from routing.data import Batch
from routing.evaluation.counting import counting
from routing.models.base import ModelOutput, VisionModel

Outputs = Callable[[Batch], Iterable[ModelOutput]]


def counted(model: VisionModel, batch: Batch, outputs_of: Outputs, ways: int) -> Iterator[ModelOutput]:
    """Yield the outputs of a batch, each with the multiply-adds of every image as units of the part ``network``.

    Where the first image alone does not cost its share of the batch, all images are run alone too. Their costs are
    taken where they add up to those of the batch; a network that decides batch by batch has no cost per image, and the
    batch's is spread evenly.

    Args:
        ways: how many outputs a batch has.

    Raises:
        ComputeError: an operator without a formula.
    """
    together = list(_each(model, batch, outputs_of, ways))
    first = [cost for _, cost in _each(model, _image(batch, 0), outputs_of, ways)]
    images = len(batch.targets)
    alike = all(cost == images * one for (_, cost), one in zip(together, first, strict=True))
    alone = [] if alike else [_costs(model, _image(batch, index), outputs_of, ways) for index in range(images)]
    for way, (output, cost) in enumerate(together):
        costs = torch.tensor([costs[way] for costs in alone] if alone else [first[way]] * images, dtype=torch.int64)
        output.units_executed = {"network": costs if int(costs.sum()) == cost else _spread(cost, images)}
        yield output


def _each(model: VisionModel, batch: Batch, outputs_of: Outputs, ways: int) -> Iterator[tuple[ModelOutput, int]]:
    outputs: Iterator[ModelOutput] | None = None
    for _ in range(ways):
        with counting(model.handles()) as count:
            outputs = iter(outputs_of(batch)) if outputs is None else outputs  # a list runs at once
            output = next(outputs)
        count.check(type(model).__name__)
        yield output, count.multiply_adds
    if outputs is not None:
        next(outputs, None)  # a generator sets its knob back when it ends


def _costs(model: VisionModel, batch: Batch, outputs_of: Outputs, ways: int) -> list[int]:
    return [cost for _, cost in _each(model, batch, outputs_of, ways)]


def _image(batch: Batch, index: int) -> Batch:
    one = slice(index, index + 1)
    facts = {name: values[one] for name, values in batch.facts.items()}
    return Batch(batch.images[one], batch.targets[one], batch.indices[one], facts)


def _spread(cost: int, images: int) -> Tensor:
    costs = torch.full((images,), cost // images, dtype=torch.int64)
    costs[: cost % images] += 1
    return costs
