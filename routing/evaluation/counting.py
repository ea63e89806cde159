"""Multiply-adds of the code that runs: torch's own counter on real tensors; no operator is silently counted as 0.

``torch.utils.flop_counter`` sees every operator that reaches a kernel, data-dependent work included, and needs no
trace. It has no formula for some products; those are here, or come with the caller as handles. What has no formula
and is not known to be free of products raises.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from routing.errors import InputError, RoutingError, nearest
from routing.models.base import Formula


class ComputeError(RoutingError):
    """The compute ledger cannot answer honestly: an uncounted operator, or two counts that disagree."""


# Operators without products that neither carry torch's tag of element-wise work nor are views.
_FREE_OPERATORS = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_tensor_metadata _embedding_bag _fused_rms_norm
    _local_scalar_dense _log_softmax _native_batch_norm_legit _native_batch_norm_legit_functional
    _native_batch_norm_legit_no_training _pad_circular _prelu_kernel _reshape_alias _reshape_copy _safe_softmax
    _softmax _thnn_fused_gru_cell _thnn_fused_lstm_cell _to_copy _unique2 _unsafe_index _unsafe_index_put _unsafe_view
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact2d _weight_norm_interface
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d adaptive_max_pool3d all amax amin aminmax any argmax
    argmin argsort as_strided_scatter avg_pool2d avg_pool3d batch_norm bernoulli bincount block_diag bucketize cat
    channel_shuffle clone col2im complex constant_pad_nd copy count_nonzero cummax cummin cumprod cumsum diag_embed
    diagonal_scatter embedding empty_like equal exponential fill flip fractional_max_pool2d full_like gather geometric
    glu grid_sampler_2d grid_sampler_3d hardswish histc im2col index index_add index_copy index_fill index_put
    index_select is_nonzero isin kthvalue lift_fresh linalg_vector_norm log_normal logcumsumexp logsumexp
    masked_scatter masked_select max max_pool2d_with_indices max_pool3d_with_indices mean median min mode multinomial
    native_batch_norm native_channel_shuffle native_dropout native_group_norm native_layer_norm new_empty
    new_empty_strided new_full new_ones new_zeros nonzero nonzero_static norm normal ones_like pixel_shuffle
    pixel_unshuffle polar prod put rand_like randint_like randn_like random reflection_pad1d reflection_pad2d
    reflection_pad3d renorm repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d resize roll
    rot90 rrelu_with_noise scatter scatter_add scatter_reduce searchsorted select_scatter set slice_scatter sort
    split_with_sizes_copy stack std std_mean sum take topk trace tril triu unfold_copy uniform unique_consecutive
    unique_dim unsafe_chunk unsafe_split unsafe_split_with_sizes upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_nearest_exact1d
    upsample_nearest_exact2d upsample_trilinear3d var var_mean zero zeros_like
"""
_FREE = frozenset(_FREE_OPERATORS.split())


def _row_times_vector(inputs: Sequence[Any], output: Any) -> int:
    """``mv``, ``dot`` and ``vdot``: one multiply-add per value of the first operand."""
    return int(inputs[0].numel())


def _added_product(inputs: Sequence[Any], output: Any) -> int:
    """``addmv``: the matrix is the second operand."""
    return int(inputs[1].numel())


def _summed_products(inputs: Sequence[Any], output: Any) -> int:
    """``addbmm``: a product per batch, all added up."""
    batch, rows, inner = inputs[1].shape
    return int(batch * rows * inner * inputs[2].shape[2])


def _attention(inputs: Sequence[Any], output: Any) -> int:
    """``scaled_dot_product_attention``: q k^T and weights v, heads and batch included; masks save nothing."""
    queries, keys, values = (tensor.shape for tensor in inputs[:3])
    return int(prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1]))


def _recurrent_layer(inputs: Sequence[Any], output: Any) -> int:
    """One layer and direction of ``nn.LSTM`` in mkldnn: every weight matrix once per step and sequence."""
    matrices = sum(tensor.numel() for tensor in inputs[1:5] if tensor.ndim == 2)
    return int(prod(inputs[0].shape[:-1]) * matrices)


def _recurrent_network(inputs: Sequence[Any], output: Any) -> int:
    """``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` in cuDNN, all layers."""
    matrices = sum(tensor.numel() for tensor in inputs[1] if tensor.ndim == 2)
    return int(prod(inputs[0].shape[:-1]) * matrices)


_FORMULAS: dict[str, Formula] = {
    "mv": _row_times_vector,
    "dot": _row_times_vector,
    "vdot": _row_times_vector,
    "addmv": _added_product,
    "addbmm": _summed_products,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_dot_product_attention_math_for_mps": _attention,
    "mkldnn_rnn_layer": _recurrent_layer,
    "_cudnn_rnn": _recurrent_network,
}


class _Seen(TorchDispatchMode):
    """Notes the name of every operator that reaches a kernel and may hide products."""

    def __init__(self, known: set[Any]) -> None:
        super().__init__()
        self.known = known
        self.unknown: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = getattr(func, "overloadpacket", func)
        if packet not in self.known and not _is_free(func, args, kwargs or {}):
            self.unknown[str(packet).replace(".", "::", 1)] += 1
        return func(*args, **(kwargs or {}))


def _is_free(func: Any, args: Any, kwargs: Any) -> bool:
    """Return whether the operator only moves, compares, normalises or scales values, or makes new ones."""
    namespace, _, name = func.name().partition("::")
    if {torch.Tag.pointwise, torch.Tag.inplace_view} & set(func.tags) or func.is_view or namespace == "prim":
        return True
    if namespace == "aten" and name.split(".")[0].rstrip("_") in _FREE:
        return True
    return not any(isinstance(value, Tensor) for value in tree_leaves((args, kwargs)))


class _NoModules:
    """Stands in for the counter's tracker of modules, whose hooks fail on a parameter that is an input of a module."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        """Track nothing."""

    def __exit__(self, *error: object) -> None:
        """Leave nothing."""


class Count:
    """What ran inside ``counting``: ``multiply_adds``, and the operators met that have no formula."""

    def __init__(self, counter: FlopCounterMode, seen: _Seen) -> None:
        self._counter, self._seen = counter, seen

    @property
    def multiply_adds(self) -> int:
        """Return the multiply-adds so far; torch's counter gives two per multiply-add."""
        return self._counter.get_total_flops() // 2

    def check(self, name: str) -> None:
        """Raise ``ComputeError`` where an operator without a formula ran; ``name`` is what ran."""
        if self._seen.unknown:
            unknown = sorted(self._seen.unknown)
            raise ComputeError(
                f"{name}: no formula for operator {', '.join(unknown[:5])}; it is not counted as 0 "
                f"(valid: handles={{'{unknown[0]}': formula}}, of its inputs and output)"
            )


@contextmanager
def counting(handles: Mapping[str, Formula] | None = None) -> Iterator[Count]:
    """Count the multiply-adds of all that runs inside, without gradients and without fused or compiled paths.

    Args:
        handles: operator -> formula of its inputs and its output, in multiply-adds; before the formulas known here.

    Raises:
        InputError: a handle for an operator that there is not.
    """
    formulas = {_packet(name): formula for name, formula in {**_FORMULAS, **(handles or {})}.items()}
    mapping = {packet: _as_flops(formula) for packet, formula in formulas.items()}
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    counter.mod_tracker = _NoModules()
    seen = _Seen(set(counter.flop_registry))
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)  # a fused encoder layer shows one operator, without products
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and it takes seconds to import
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(seen)  # below the counter: sees what it could not take apart
        stack.enter_context(counter)
        yield Count(counter, seen)


def count_module(module: nn.Module, inputs: tuple[Any, ...], *, handles: Mapping[str, Formula] | None = None) -> int:
    """Return the multiply-adds of one call of ``module`` in eval mode; it is left as it was, also after an error.

    Tensors and weights on the device ``meta`` cost no time, unless the model looks at values.

    Args:
        inputs: the arguments of the call; what it really executes for them is counted.
        handles: operator (``aten::bilinear``) -> formula, called with the operator's inputs and its output.

    Raises:
        ComputeError: an operator that has no formula and is not known to be free of products.
    """
    modes = {part: part.training for part in module.modules()}
    devices = {tensor.device for tensor in tree_leaves(inputs) if isinstance(tensor, Tensor)}
    try:
        with torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]), counting(handles) as count:
            module.eval()(*inputs)
    finally:
        for part, training in modes.items():
            part.training = training
    count.check(type(module).__name__)
    return count.multiply_adds


def _packet(name: str) -> Any:
    """Return torch's object for an operator called ``aten::mm`` or ``mm``."""
    namespace, _, operator = name.rpartition("::")
    packet = getattr(getattr(torch.ops, namespace or "aten"), operator, None)
    if packet is None:
        raise InputError(f"handles: there is no operator '{name}'{nearest(operator, _FORMULAS)} (valid: aten::NAME)")
    if all(getattr(packet, overload)._can_decompose() for overload in packet.overloads() if "out" not in overload):
        raise InputError(
            f"handles: '{name}' is made of other operators, which are counted instead (valid: the name that the count "
            "without handles complains of)"
        )
    return packet


def _as_flops(formula: Formula) -> Callable[..., int]:
    """Return the formula as torch's counter calls it, two per multiply-add."""

    def flops(*inputs: Any, out_val: Any = None, **kwargs: Any) -> int:
        return 2 * formula((*inputs, *kwargs.values()), out_val)

    flops._get_raw = True  # type: ignore[attr-defined]  # tensors, not their shapes
    return flops
