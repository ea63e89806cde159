"""Does the router work? A router may meet its budget exactly and still pick only useless patches.

gap closed = (routed - random) / (full - random)     all three with the same trained model; random and routed
                                                     send the same number of patches of every image
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from routing.data import Batch
from routing.evaluation.evaluate import Evaluation, Evaluator
from routing.models.base import ModelOutput
from routing.models.patch_routing import AttentionRouting
from routing.models.routers import RoutingDecision
from routing.training.loop import total_loss

EXTREME_RATE = 0.01
SATURATED = 0.01


def certify(model: AttentionRouting, evaluator: Evaluator, routed: Evaluation) -> dict[str, Any]:
    """Return the certificate of a trained router, measured on the evaluator's split.

    Keys: ``state`` (healthy, all_on, all_off, anti), ``rate``, ``share_all_on`` and ``share_all_off`` (of images),
    ``big_share`` (of all multiply-adds), ``score_routed``, ``score_random`` and ``score_full`` (the task's metric),
    ``gap_closed`` (None when random is as good as full), ``grad_norm_scores`` and ``grad_norm_threshold`` (None
    where there is no gradient), ``saturation`` (share of gates within 1 % of 0 or 1; None without a threshold).
    """
    metric = evaluator.task.metric
    sign = 1.0 if evaluator.task.higher_is_better else -1.0
    score_routed = routed.metrics[metric]
    score_random = evaluator.run(model, lambda batch: _shuffled(model, batch)).metrics[metric]
    score_full = evaluator.run(model, lambda batch: _all_big(model, batch)).metrics[metric]
    assert routed.routing_ratio is not None
    ratio = routed.routing_ratio.double()
    big_cost = model.grid.num_patches * model.branch_multiply_adds("big")
    gap, gain = sign * (score_full - score_random), sign * (score_routed - score_random)
    return {
        "state": _state(float(ratio.mean()), gain, score_random, len(ratio)),
        "rate": float(ratio.mean()),
        "share_all_on": float((ratio == 1).double().mean()),
        "share_all_off": float((ratio == 0).double().mean()),
        "big_share": float(ratio.mean()) * big_cost / float(routed.flops.double().mean()),
        "score_routed": score_routed,
        "score_random": score_random,
        "score_full": score_full,
        "gap_closed": gain / gap if gap > 0 else None,
        **_gradients(model, evaluator),
        "saturation": _saturation(model, evaluator),
    }


def _state(rate: float, gain: float, score_random: float, count: int) -> str:
    if rate >= 1 - EXTREME_RATE:
        return "all_on"
    if rate <= EXTREME_RATE:
        return "all_off"
    noise = 2 * (max(score_random * (1 - score_random), 0.0) / count) ** 0.5  # two standard errors of a share
    return "anti" if gain < -noise else "healthy"


def _shuffled(model: AttentionRouting, batch: Batch) -> ModelOutput:
    """Route as many patches of every image as the router did, but by lot."""
    encoded = model.encode(batch.images)
    hard_BN = model.decide(encoded.scores_BN).hard_BN
    noise = torch.rand(hard_BN.shape, generator=torch.Generator().manual_seed(int(batch.indices[0])))
    rank_BN = noise.argsort(dim=1).argsort(dim=1).to(hard_BN.device)
    random_BN = rank_BN < hard_BN.sum(1, keepdim=True)
    return model.dispatch(encoded, RoutingDecision(random_BN, random_BN.float()))


def _all_big(model: AttentionRouting, batch: Batch) -> ModelOutput:
    encoded = model.encode(batch.images)
    everything = torch.ones_like(encoded.scores_BN, dtype=torch.bool)
    return model.dispatch(encoded, RoutingDecision(everything, everything.float()))


def _gradients(model: AttentionRouting, evaluator: Evaluator) -> dict[str, float | None]:
    """Return gradient norms of scores and threshold in one training step; batch-norm statistics are left alone."""
    was_training = model.training
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    batch = next(evaluator.batches())
    with torch.enable_grad(), evaluator.autocast:
        encoded = model.encode(batch.images)
        gradient_of_scores = encoded.scores_BN.detach().requires_grad_()
        encoded.scores_BN = gradient_of_scores
        output = model.counterfactual(encoded, model.decide(gradient_of_scores))
        loss, _ = total_loss(output, evaluator.task, batch.targets)
        threshold = getattr(model.router, "threshold", None)
        wanted = [gradient_of_scores] + ([threshold] if isinstance(threshold, nn.Parameter) else [])
        found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, wanted, allow_unused=True)
    model.train(was_training)
    norms = [None if gradient is None else float(gradient.norm()) for gradient in (*found, None)]
    return {"grad_norm_scores": norms[0], "grad_norm_threshold": norms[1]}


@torch.no_grad()
def _saturation(model: AttentionRouting, evaluator: Evaluator) -> float | None:
    threshold = getattr(model.router, "threshold", None)
    if not isinstance(threshold, Tensor):
        return None
    was_training = model.training
    model.eval()
    scores_BN = model.encode(next(evaluator.batches()).images).scores_BN
    model.train(was_training)
    gate_BN = torch.sigmoid((scores_BN - threshold) / model.router.temperature)
    return float(((gate_BN < SATURATED) | (gate_BN > 1 - SATURATED)).double().mean())
