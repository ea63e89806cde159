"""The compute ledger: multiply-adds per image, counted two ways that must agree exactly.

One multiply-add counts as 1, the convention of fvcore and of the ViT literature. Counted are products with weights and
between activations (convolutions, linear layers, attention, weighted sums). Element-wise work, normalisation, pooling,
copies and comparisons count as 0, as in ``torch.utils.flop_counter``.

* executed: every operator that the batch really ran, image dependent work included (``counting``).
* closed form: the units the dispatcher reports for every image, times a formula of one unit written from the widths.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from routing.config.run import RunConfig
from routing.config.section import DatasetSection, ModelSection
from routing.data import Batch
from routing.evaluation.counting import ComputeError, count_module, counting
from routing.evaluation.executed import counted
from routing.models.base import CountedPart, Formula, VisionModel

__all__ = ["ComputeError", "ComputeReport", "count_module", "expected_flops", "measure"]


@dataclass(frozen=True)
class ComputeReport:
    """Multiply-adds of one batch.

    executed_per_image, closed_form_per_image: int64 (B,); the second is None of a network that has none.
    by_module: mean executed multiply-adds per image of every part.
    """

    executed_per_image: Tensor
    closed_form_per_image: Tensor | None
    by_module: dict[str, float]


@torch.no_grad()
def measure(model: VisionModel, images: Tensor, **facts: Tensor) -> ComputeReport:
    """Run the model as in inference, and count what the batch executed and what every part of it costs.

    Args:
        images: normalised (B, C, H, W).
        facts: what the model needs beside the pixels.

    Raises:
        ComputeError: executed and closed form differ, or an operator has no formula.
    """
    if not model.has_closed_form:
        return _executed_alone(model, images)
    was_training = model.training
    handles = model.handles()
    with counting(handles) as count:
        output = model.eval()(images, **facts)
    model.train(was_training)
    count.check(type(model).__name__)
    units, parts = output.units_executed, model.executed_parts(output.units_executed)
    per_unit = {name: _executed(part, images.device, handles) for name, part in parts.items()}
    executed = torch.zeros(len(images), dtype=torch.int64)
    by_module: dict[str, float] = {}
    for name, part in parts.items():
        times = units[name].to("cpu", torch.int64) if part.static_units is None else torch.tensor(part.static_units)
        executed += times * per_unit[name]
        by_module[str(name)] = float((times * per_unit[name]).double().mean())
    closed = model.closed_form(units, len(images))
    wrong = {name: (part.per_unit, per_unit[name]) for name, part in parts.items() if part.per_unit != per_unit[name]}
    if wrong:
        raise ComputeError(f"closed form and executed multiply-adds differ (part: (closed, executed)): {wrong}")
    if count.multiply_adds != int(closed.sum()):
        raise ComputeError(
            f"closed form and executed multiply-adds differ: the parts add up to {int(closed.sum())} for these "
            f"{len(images)} images, {count.multiply_adds} were executed (work in no part, or units that did not run)"
        )
    return ComputeReport(executed, closed, by_module)


def _executed_alone(model: VisionModel, images: Tensor) -> ComputeReport:
    was_training = model.training
    numbers = torch.arange(len(images))
    batch = Batch(images, numbers, numbers)
    (output,) = counted(model.eval(), batch, lambda batch: [model(batch.images)], 1)
    model.train(was_training)
    costs = output.units_executed["network"]
    return ComputeReport(costs, None, {"network": float(costs.double().mean())})


def _executed(part: CountedPart, device: torch.device, handles: dict[str, Formula]) -> int:
    return count_module(part.module, tuple(value.to(device) for value in part.inputs), handles=handles)


def _expected(model: ModelSection, dataset: DatasetSection) -> tuple[float, float]:
    with torch.random.fork_rng(devices=[]):
        built = model.build(dataset.info())
    return float(built.expected_flops()), float(built.num_parameters())


_known = functools.lru_cache(maxsize=4096)(_expected)


def expected_flops(config: RunConfig) -> float:
    """Return multiply-adds per image expected before training: the closed form at the budget's nominal units."""
    return expected_costs(config)["flops"]


def expected_costs(config: RunConfig) -> dict[str, float]:
    """Return what is known before training: ``flops``, as ``expected_flops``, and ``params``."""
    try:
        flops, params = _known(config.model, config.dataset)
    except TypeError:  # a section of a plugin with a list in it has no hash
        flops, params = _expected(config.model, config.dataset)
    return {"flops": flops, "params": params}
