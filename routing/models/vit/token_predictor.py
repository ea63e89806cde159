"""DynamicViT (arXiv:2106.02034): a small network before each block of a schedule says which patches go on.

In evaluation the best share is gathered as of any other method. In training nothing is removed, so that the decisions
have gradients: a patch is kept or dropped by a straight-through sample of Gumbel-softmax, and dropped ones are hidden
from the attention of all other tokens (section 3.3 of the paper). The mean share that is kept is drawn to that of the
schedule by a squared difference (its equation 12).

Shapes: B images, T tokens, P of them before the N patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.errors import choices
from routing.models.vit.block_methods import Step
from routing.models.vit.host import Host
from routing.models.vit.opened import attend, feed

KEEP_RATE, KEEP_RATE_WEIGHT = "keep_rate", 2.0
"""Name of the loss term, and its weight in the paper."""


class Predictor(nn.Module):
    """Scores of patches: half of the features are a patch's own, half become the mean over the patches present.

    trained: whether it has ever been part of a training step; kept with the weights.
    """

    trained: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = max(1, width // 2), max(1, width // 4)
        self.features = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.decision = nn.Sequential(
            nn.Linear(width, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(), nn.Linear(quarter, 2)
        )
        self.register_buffer("trained", torch.tensor(False))

    def forward(self, patches_BND: Tensor, left_BN: Tensor | None = None) -> Tensor:
        """Return logits (B, N, 2) of keeping and of dropping; ``left_BN`` is 0 where a patch is dropped already."""
        own, shared = self.features(patches_BND).chunk(2, dim=2)
        if left_BN is None:
            mean_B1D = shared.mean(dim=1, keepdim=True)
        else:
            weights_BN1 = (left_BN / left_BN.sum(dim=1, keepdim=True).clamp(min=1))[..., None]
            mean_B1D = (shared * weights_BN1).sum(dim=1, keepdim=True)
        logits: Tensor = self.decision(torch.cat([own, mean_B1D.expand(-1, own.shape[1], -1)], dim=2))
        return logits

    def scores(self, patches_BND: Tensor) -> Tensor:
        """Return the log odds (B, N) of being kept; not in half precision under autocast, which rounds them equal."""
        with torch.autocast(patches_BND.device.type, enabled=False):
            keep_BN, drop_BN = self(patches_BND.to(self.decision[0].weight.dtype)).unbind(dim=2)
        return keep_BN - drop_BN

    @staticmethod
    def multiply_adds(num_patches: int, width: int) -> int:
        """Return N (D^2 + D D/2 + D/2 D/4 + 2 D/4)."""
        half, quarter = max(1, width // 2), max(1, width // 4)
        return num_patches * (width**2 + width * half + half * quarter + 2 * quarter)


def untrained(predictors: Mapping[str, Predictor]) -> str | None:
    """Return a line that names those that have never been trained; None where all have been."""
    blocks = [index for index, predictor in predictors.items() if not predictor.trained]
    if not blocks:
        return None
    return (
        f"pruning: the predictor before block {choices(blocks)} is untrained; what it keeps means nothing "
        "(training.reduce_tokens true trains it)"
    )


@dataclass(frozen=True)
class Masked:
    """What a training step with masks gives.

    tokens: (B, T, D), all of them. left: (B, T), 1 where a token is left in the end, else 0. apart: the mean over
    predictors and images of (share of patches kept - share of the schedule)^2.
    """

    tokens: Tensor
    left: Tensor
    apart: Tensor


def run_masked(
    host: Host, predictors: Mapping[str, Predictor], steps: Mapping[int, Step], tokens_BTD: Tensor
) -> Masked:
    """Run all blocks on all tokens, those that a predictor drops hidden from the others from its block on.

    Args:
        predictors: block -> what decides before it.
        steps: of the schedule: block -> how many tokens are wanted there.
    """
    first, positions = host.prefix.count, host.positions()
    left_BT, apart = tokens_BTD.new_ones(tokens_BTD.shape[:2], dtype=torch.float32), list[Tensor]()
    for index, block in enumerate(host.blocks):
        if index in steps:
            predictor, before_BN = predictors[str(index)], left_BT[:, first:]
            logits_BN2 = predictor(tokens_BTD[:, first:], before_BN).float()
            after_BN = before_BN * F.gumbel_softmax(logits_BN2, hard=True)[..., 0]
            left_BT = torch.cat([left_BT[:, :first], after_BN], dim=1)
            share = (steps[index].left - first) / host.num_patches
            apart.append((after_BN.mean(dim=1) - share).square().mean())
            predictor.trained.fill_(True)
        if not apart:
            tokens_BTD = host.run(block, tokens_BTD, positions[index])
            continue
        seen = attend(host, block, tokens_BTD, positions[index], left_BT=left_BT)
        tokens_BTD = feed(host, block, seen.tokens)
    return Masked(tokens_BTD, left_BT, torch.stack(apart).mean() if apart else left_BT.new_zeros(()))
