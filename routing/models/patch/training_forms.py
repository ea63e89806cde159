"""Training forms: three ways to run two branches under a gate, equal in value where the gate is hard.

* dense: both branches on every patch, ``small + gate * (big - small)``. Every gate gets a gradient of the difference.
* counterfactual: small on every patch, big where routed. Only routed gates get the gradient of the difference.
* sparse: only the branch taken, ``gate * big`` or ``(1 - gate) * small``. Training costs the same as inference.

``MASKED`` holds each with the same values and gradients in shapes that do not depend on the decision: both branches run
on every patch, and what a patch did not take is masked. It needs experts that treat every row on its own.

Shapes: M = B * N patches of a batch, P values per patch, D width; all functions return features (M, D). ``num_hard``
is the number of routed patches where it is known (see ``rows_of``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from routing.models.units import rows_of

TrainingForm = Callable[[nn.Module, nn.Module, Tensor, Tensor, Tensor, "int | None"], Tensor]


def dense(
    big: nn.Module, small: nn.Module, patches_MP: Tensor, hard_M: Tensor, gate_M: Tensor, num_hard: int | None = None
) -> Tensor:
    """Both branches everywhere."""
    features_MD = small(patches_MP)
    return features_MD + gate_M.unsqueeze(1).to(features_MD.dtype) * (big(patches_MP) - features_MD)


def counterfactual(
    big: nn.Module, small: nn.Module, patches_MP: Tensor, hard_M: Tensor, gate_M: Tensor, num_hard: int | None = None
) -> Tensor:
    """Small everywhere, big only where routed."""
    features_MD = small(patches_MP)
    rows, _ = rows_of(hard_M, num_hard)
    change_KD = big(patches_MP[rows]) - features_MD[rows]
    gated_KD = change_KD * gate_M[rows].unsqueeze(1)
    return features_MD.index_add(0, rows, gated_KD.to(features_MD.dtype))


def sparse(
    big: nn.Module, small: nn.Module, patches_MP: Tensor, hard_M: Tensor, gate_M: Tensor, num_hard: int | None = None
) -> Tensor:
    """Each patch through its own branch only."""
    on, off = rows_of(hard_M, num_hard)
    big_KD = big(patches_MP[on]) * gate_M[on].unsqueeze(1)
    small_KD = small(patches_MP[off]) * (1 - gate_M[off]).unsqueeze(1)
    features_MD = big_KD.new_zeros(len(hard_M), big_KD.shape[1])
    return features_MD.index_add(0, on, big_KD).index_add(0, off, small_KD)


def masked_counterfactual(
    big: nn.Module, small: nn.Module, patches_MP: Tensor, hard_M: Tensor, gate_M: Tensor, num_hard: int | None = None
) -> Tensor:
    """``counterfactual``, the gates of patches that are not routed masked."""
    return dense(big, small, patches_MP, hard_M, torch.where(hard_M, gate_M, 0))


def masked_sparse(
    big: nn.Module, small: nn.Module, patches_MP: Tensor, hard_M: Tensor, gate_M: Tensor, num_hard: int | None = None
) -> Tensor:
    """``sparse``, the branch not taken masked."""
    taken_M1, gate_M1 = hard_M.unsqueeze(1), gate_M.unsqueeze(1)
    return torch.where(taken_M1, big(patches_MP) * gate_M1, small(patches_MP) * (1 - gate_M1))


FORMS: dict[str, TrainingForm] = {"counterfactual": counterfactual, "dense": dense, "sparse": sparse}
MASKED: dict[str, TrainingForm] = {"counterfactual": masked_counterfactual, "dense": dense, "sparse": masked_sparse}
