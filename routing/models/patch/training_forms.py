"""Training forms: three ways to run two branches under a gate, equal in value where the gate is hard.

* dense: both branches on every patch, ``small + gate * (big - small)``. Every gate gets a gradient of the difference.
* counterfactual: small on every patch, big where routed. Only routed gates get the gradient of the difference.
* sparse: only the branch taken, ``gate * big`` or ``(1 - gate) * small``. Training costs the same as inference.

Shapes: M = B * N patches of a batch, P values per patch, D width; all functions return features (M, D).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

TrainingForm = Callable[[nn.Module, nn.Module, Tensor, Tensor, Tensor], Tensor]


def dense(big: nn.Module, small: nn.Module, patches_MP: Tensor, hard_M: Tensor, gate_M: Tensor) -> Tensor:
    """Both branches everywhere."""
    features_MD = small(patches_MP)
    return features_MD + gate_M.unsqueeze(1).to(features_MD.dtype) * (big(patches_MP) - features_MD)


def counterfactual(big: nn.Module, small: nn.Module, patches_MP: Tensor, hard_M: Tensor, gate_M: Tensor) -> Tensor:
    """Small everywhere, big only where routed."""
    features_MD = small(patches_MP)
    rows = hard_M.nonzero().squeeze(1)
    change_KD = big(patches_MP[rows]) - features_MD[rows]
    gated_KD = change_KD * gate_M[rows].unsqueeze(1)
    return features_MD.index_add(0, rows, gated_KD.to(features_MD.dtype))


def sparse(big: nn.Module, small: nn.Module, patches_MP: Tensor, hard_M: Tensor, gate_M: Tensor) -> Tensor:
    """Each patch through its own branch only."""
    on, off = hard_M.nonzero().squeeze(1), (~hard_M).nonzero().squeeze(1)
    big_KD = big(patches_MP[on]) * gate_M[on].unsqueeze(1)
    small_KD = small(patches_MP[off]) * (1 - gate_M[off]).unsqueeze(1)
    features_MD = big_KD.new_zeros(len(hard_M), big_KD.shape[1])
    return features_MD.index_add(0, on, big_KD).index_add(0, off, small_KD)


FORMS: dict[str, TrainingForm] = {"counterfactual": counterfactual, "dense": dense, "sparse": sparse}
