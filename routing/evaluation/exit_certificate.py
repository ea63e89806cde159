"""Do early exits let the right images go? Other ways of leaving, with the same trained model on the same images.

gap closed = (exits - random) / (full - random)     random: as many images leave at each head, drawn at random

Shapes: M images, E early heads, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from routing.evaluation.certificate import router_state
from routing.evaluation.evaluate import Evaluation, Evaluator
from routing.models.exits.model import EarlyExit
from routing.quantities import quantity

SEED = 20_240_917


@torch.no_grad()
def certify_exits(model: EarlyExit, evaluator: Evaluator, routed: Evaluation) -> dict[str, Any]:
    """Return the certificate of trained early exits at the default confidence, measured on the evaluator's split.

    Keys: ``state`` (see ``certificate.router_state``), ``rate`` (share of images that reach the last head),
    ``share_all_on`` (the same), ``share_all_off`` (leave at the first head), ``score_routed`` (the task's metric),
    ``score_random`` (as many images at each head, at random), ``score_permuted`` (each image leaves where the next one
    would), ``score_full`` (the last head alone), ``score_oracle`` and ``flops_oracle`` (each image leaves at the first
    head that is right, at the last one where none is), ``gap_closed`` and ``gap_closed_oracle``, and of every head
    ``score_exit<stage>`` (alone, all images) and ``left_exit<stage>`` (share of images).
    """
    every_MEC = _every_head(model, evaluator)
    targets = evaluator.split.targets.cpu()
    left_M = model.first_confident(model.confidences(list(every_MEC.unbind(1))).cpu(), model.confidence)
    generator = torch.Generator().manual_seed(SEED)
    right_ME = every_MEC.argmax(dim=2) == targets.unsqueeze(1)
    last = every_MEC.shape[1] - 1
    oracle_M = torch.where(right_ME.any(dim=1), right_ME.int().argmax(dim=1), last)

    def score(where_M: Tensor) -> float:
        chosen_MC = every_MEC[torch.arange(len(where_M)), where_M]
        return evaluator.task.metrics(chosen_MC, targets)[evaluator.task.metric]

    everyone = {head: score(torch.full_like(left_M, head)) for head in range(last + 1)}
    certificate: dict[str, Any] = {
        "state": None,
        "rate": float((left_M == last).double().mean()),
        "share_all_on": float((left_M == last).double().mean()),
        "share_all_off": float((left_M == 0).double().mean()),
        "score_routed": routed.metrics[evaluator.task.metric],
        "score_random": score(left_M[torch.randperm(len(left_M), generator=generator)]),
        "score_permuted": score(left_M.roll(1)),
        "score_full": everyone[last],
        "score_oracle": score(oracle_M),
        "flops_oracle": _mean_cost(model, oracle_M),
    }
    random, exits = certificate["score_random"], certificate["score_routed"]
    for name, best in (("gap_closed", "score_full"), ("gap_closed_oracle", "score_oracle")):
        gap = certificate[best] - random
        certificate[name] = (exits - random) / gap if gap > 0 else None
    for head, stage in enumerate((*model.exits, len(model.links.stages))):
        certificate[f"score_exit{stage}"] = everyone[head]
        certificate[f"left_exit{stage}"] = float((left_M == head).double().mean())
    sign = 1.0 if quantity(evaluator.task.metric).higher_is_better else -1.0
    certificate["state"] = router_state({**certificate, "gap_closed_oracle": None}, sign, len(left_M))
    return certificate


def _every_head(model: EarlyExit, evaluator: Evaluator) -> Tensor:
    """Return the logits (M, E + 1, C) of every head for every image."""
    was_training = model.training
    model.eval()
    with evaluator.autocast:
        found = [torch.stack(model.every_head(batch.images), dim=1).cpu() for batch in evaluator.batches()]
    model.train(was_training)
    return torch.cat(found)


def _mean_cost(model: EarlyExit, left_M: Tensor) -> float:
    """Return multiply-adds per image when images leave at these heads (M,), counted from 0."""
    units = model.units_of(left_M)
    return float(model.closed_form(units, len(left_M)).double().mean())
