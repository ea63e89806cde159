"""The other ways to route patches to two branches, written as a user might, for the same weights and the same answer.

Shapes: B batch, N patches, P values per patch; every function returns pooled features (B, D).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from routing.models.patch.model import PatchModel

Peer = Callable[[PatchModel, Tensor, Tensor, Tensor], Tensor]


def masked_dense(model: PatchModel, patches_BNP: Tensor, hard_BN: Tensor, weights_BN: Tensor) -> Tensor:
    """Both branches on every patch, then a mask."""
    features = torch.where(hard_BN.unsqueeze(-1), model.expert("big")(patches_BNP), model.expert("small")(patches_BNP))
    return torch.bmm(weights_BN.unsqueeze(1), features).squeeze(1)


def python_loop(model: PatchModel, patches_BNP: Tensor, hard_BN: Tensor, weights_BN: Tensor) -> Tensor:
    """Patch by patch."""
    pooled = []
    for patches, hard, weights in zip(patches_BNP, hard_BN, weights_BN, strict=True):
        features = [model.expert("big" if big else "small")(p) for p, big in zip(patches, hard.tolist(), strict=True)]
        pooled.append(weights @ torch.stack(features))
    return torch.stack(pooled)


def boolean_mask(model: PatchModel, patches_BNP: Tensor, hard_BN: Tensor, weights_BN: Tensor) -> Tensor:
    """Boolean indexing into and out of each branch."""
    features = patches_BNP.new_empty(*hard_BN.shape, model.width)
    features[hard_BN] = model.expert("big")(patches_BNP[hard_BN])
    features[~hard_BN] = model.expert("small")(patches_BNP[~hard_BN])
    return torch.bmm(weights_BN.unsqueeze(1), features).squeeze(1)


def fixed_capacity(model: PatchModel, patches_BNP: Tensor, hard_BN: Tensor, weights_BN: Tensor) -> Tensor:
    """Small branch on all, big branch on as many slots per image as the fullest image needs."""
    features = model.expert("small")(patches_BNP)
    slots_BK = hard_BN.int().argsort(dim=1, descending=True, stable=True)[:, : int(hard_BN.sum(1).max())]
    index = slots_BK.unsqueeze(-1)
    big = model.expert("big")(patches_BNP.gather(1, index.expand(-1, -1, patches_BNP.shape[-1])))
    kept = torch.where(
        hard_BN.gather(1, slots_BK).unsqueeze(-1), big, features.gather(1, index.expand(-1, -1, model.width))
    )
    features = features.scatter(1, index.expand(-1, -1, model.width), kept)
    return torch.bmm(weights_BN.unsqueeze(1), features).squeeze(1)


PEERS: dict[str, Peer] = {
    "masked dense": masked_dense,
    "boolean mask": boolean_mask,
    "fixed capacity": fixed_capacity,
    "python loop": python_loop,
}
