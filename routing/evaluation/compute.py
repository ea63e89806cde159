"""The compute ledger: multiply-adds per image, counted two ways that must agree exactly.

One multiply-add counts as 1, the convention of fvcore and of the ViT literature. Counted are products with weights and
between activations (convolutions, linear layers, attention, weighted sums). Element-wise work, normalisation, pooling,
copies and comparisons count as 0, as in ``torch.utils.flop_counter``.

* executed: fvcore traces every part for one unit; a conditional part is multiplied by the units the dispatcher really
  ran for each image.
* closed form: the same units times a formula written from the widths.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from routing.config.run import RunConfig
from routing.config.section import DatasetSection, ModelSection
from routing.errors import RoutingError
from routing.models.base import CountedPart, ModelOutput, VisionModel


class ComputeError(RoutingError):
    """The compute ledger cannot answer honestly: an uncounted operator, or two counts that disagree."""


@dataclass(frozen=True)
class ComputeReport:
    """Multiply-adds of one batch.

    executed_per_image, closed_form_per_image: int64 (B,).
    by_module: mean executed multiply-adds per image of every part.
    """

    executed_per_image: Tensor
    closed_form_per_image: Tensor
    by_module: dict[str, float]


# Operators without products; everything that is neither here nor known to fvcore raises.
_FREE_OPERATORS = """
    __and__ __or__ abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d add add_ alias all amax amin
    arange argmax argsort avg_pool2d batch_norm bernoulli bernoulli_ bitwise_not broadcast_tensors cat chunk
    clamp clamp_min clone constant_pad_nd contiguous copy copy_ cos cumsum detach div div_ dropout elu eq exp
    expand expand_as feature_dropout fill_ flatten flip floor floor_divide full full_like gather ge gelu
    group_norm gt hardsigmoid hardswish hardswish_ hardtanh hardtanh_ im2col index index_add index_add_
    index_put_ index_select le leaky_relu leaky_relu_ lift_fresh linalg_vector_norm linspace log log_softmax
    logical_not lt masked_fill masked_fill_ max max_pool2d maximum mean meshgrid min minimum movedim mul mul_
    narrow native_layer_norm ne neg new_full new_ones new_zeros nonzero norm ones ones_like pad permute pow prod
    rand rand_like reciprocal relu relu_ repeat repeat_interleave reshape roll rsqrt rsub scatter scatter_
    scatter_add select select_scatter sigmoid sigmoid_ silu silu_ sin slice softmax softplus sort split
    split_with_sizes sqrt squeeze stack std sub sub_ sum t tanh to topk transpose tril triu type_as unbind
    unflatten unfold unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_nearest2d var view view_as where
    zeros zeros_like
"""
_FREE = frozenset(f"aten::{name}" for name in _FREE_OPERATORS.split())


def _zero(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


def _attention_products(inputs: list[Any], outputs: list[Any]) -> int:
    """Return multiply-adds of scaled_dot_product_attention: q k^T and weights v, heads and batch included."""
    *batch, queries, width = _shape(inputs[0])
    keys, value_width = _shape(inputs[1])[-2], _shape(inputs[2])[-1]
    count = 1
    for size in batch:
        count *= size
    return count * queries * keys * (width + value_width)


def _shape(value: Any) -> list[int]:
    sizes = value.type().sizes()
    assert sizes is not None
    return list(sizes)


_HANDLES: dict[str, Callable[[list[Any], list[Any]], int]] = {
    "aten::scaled_dot_product_attention": _attention_products,
    **{
        f"aten::{name}": _zero
        for name in (
            "batch_norm",
            "group_norm",
            "layer_norm",
            "instance_norm",
            "upsample_nearest2d",
            "upsample_bilinear2d",
            "adaptive_avg_pool2d",
            "grid_sampler",
        )
    },
}


def count_module(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Return the multiply-adds fvcore counts in one call of ``module``, always in eval mode and without fused paths.

    Raises:
        ComputeError: an operator that fvcore has no formula for and that is not known to be free of products.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore imports torch.jit.script, deprecated since torch 2.9
        from fvcore.nn import FlopCountAnalysis

    was_training = module.training
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a fused encoder layer shows one operator that hides its products
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's remarks on shapes it holds fixed
            analysis = FlopCountAnalysis(module.eval(), inputs).set_op_handle(**_HANDLES)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            total = int(analysis.total())
            unknown = {name for name in analysis.unsupported_ops() if name not in _FREE}
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        module.train(was_training)
    if unknown:
        raise ComputeError(
            f"{type(module).__name__}: no formula for operator {', '.join(sorted(unknown))}; it is not counted as 0: "
            "add it to routing/compute.py"
        )
    return total


def _traced(part: CountedPart, device: torch.device) -> int:
    return count_module(part.module, tuple(value.to(device) for value in part.inputs))


@torch.no_grad()
def measure(model: VisionModel, images: Tensor, output: ModelOutput | None = None) -> ComputeReport:
    """Run the model as in inference and count what was executed for every image.

    Args:
        images: normalised (B, C, H, W).
        output: what the model returned for these images, to spare the run.

    Raises:
        ComputeError: executed and closed form differ, or an operator has no formula.
    """
    was_training = model.training
    output = output if output is not None else model.eval()(images)
    units = output.units_executed
    executed = torch.zeros(len(images), dtype=torch.int64)
    by_module: dict[str, float] = {}
    parts = model.executed_parts(units)
    for name, part in parts.items():
        count = units[name].to("cpu", torch.int64) if part.static_units is None else torch.tensor(part.static_units)
        cost = count * _traced(part, images.device)
        executed += cost
        by_module[name] = float(cost.double().mean())
    model.train(was_training)
    closed = model.closed_form(units, len(images))
    if not torch.equal(executed, closed):
        wrong = {
            name: (part.per_unit, _traced(part, images.device))
            for name, part in parts.items()
            if part.per_unit != _traced(part, images.device)
        }
        raise ComputeError(f"closed form and executed multiply-adds differ (part: (closed, executed)): {wrong}")
    return ComputeReport(executed, closed, by_module)


def _expected(model: ModelSection, dataset: DatasetSection) -> float:
    with torch.random.fork_rng(devices=[]):
        return float(model.build(dataset.info()).expected_flops())


_known = functools.lru_cache(maxsize=4096)(_expected)


def expected_flops(config: RunConfig) -> float:
    """Return multiply-adds per image expected before training: the closed form at the budget's nominal units."""
    try:
        return _known(config.model, config.dataset)
    except TypeError:  # a section of a plugin with a list in it has no hash
        return _expected(config.model, config.dataset)
