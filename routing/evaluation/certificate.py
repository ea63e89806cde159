"""Does the router work? A router may meet its budget exactly and still pick only useless patches.

gap closed = (routed - random) / (full - random)     all three with the same trained model; random and routed
                                                     send the same number of patches of every image
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from routing.data import Batch
from routing.evaluation.evaluate import Evaluation, Evaluator
from routing.evaluation.tasks import total_loss
from routing.models.base import ModelOutput
from routing.models.units import RoutedModel, RoutingDecision, everywhere
from routing.quantities import quantity

EXTREME_RATE = 0.01
SATURATED = 0.01
ENOUGH = 0.75
BOX = "box"


def certify(model: RoutedModel[Any], evaluator: Evaluator, routed: Evaluation) -> dict[str, Any]:
    """Return the certificate of a trained model that routes, measured on the evaluator's split.

    Keys: ``state`` (see ``router_state``), ``rate``, ``share_all_on`` and ``share_all_off`` (of images), ``big_share``
    (of all multiply-adds), ``score_routed``, ``score_random`` and ``score_full`` (the task's metric), ``gap_closed``
    (None when random is as good as full), ``grad_norm_scores`` and ``grad_norm_threshold`` (None where there is no
    gradient), ``saturation`` (share of gates within 1 % of 0 or 1; None without a threshold). Where the data knows
    the object's box also ``recall`` (share of the box that is routed, mean over images; ``rate`` for random patches)
    and its standard error ``recall_error``, ``score_oracle`` (as many patches of every image, those with most of the
    box) and ``gap_closed_oracle``.
    """
    assert routed.routing_ratio is not None
    ways = _OtherWays(model, BOX in evaluator.info.facts)
    facts = dict.fromkeys((*model.needs, *((BOX,) if ways.has_box else ())))
    scores = [e.metrics[evaluator.task.metric] for e in evaluator.several(model, ways.count, ways, tuple(facts))]
    score_routed = routed.metrics[evaluator.task.metric]
    sign = 1.0 if quantity(evaluator.task.metric).higher_is_better else -1.0
    ratio = routed.routing_ratio.double()
    big_cost = model.grid.num_patches * model.expensive_multiply_adds()
    certificate: dict[str, Any] = {
        "state": None,
        "rate": float(ratio.mean()),
        "share_all_on": float((ratio == 1).double().mean()),
        "share_all_off": float((ratio == 0).double().mean()),
        "big_share": float(ratio.mean()) * big_cost / float(routed.flops.double().mean()),
        "score_routed": score_routed,
        "score_random": scores[0],
        "score_full": scores[1],
        "gap_closed": _gap_closed(sign, score_routed, scores[0], scores[1]),
        **_gradients(model, evaluator),
        "saturation": _saturation(model, evaluator),
    }
    if ways.has_box:
        recall = torch.cat(ways.recall).cpu().double()
        certificate["recall"] = float(recall.mean())
        certificate["recall_error"] = float(recall.std() / len(recall) ** 0.5)
        certificate["score_oracle"] = scores[2]
        certificate["gap_closed_oracle"] = _gap_closed(sign, score_routed, scores[0], scores[2])
    certificate["state"] = router_state(certificate, sign, len(ratio))
    return certificate


def router_state(certificate: Mapping[str, Any], sign: float, count: int) -> str:
    """Name what a router does, from the numbers of its certificate.

    * ``all_on``, ``all_off``: collapsed.
    * ``anti``: it picks worse patches than a random choice, by the task's metric or by the share of the box it routes.
    * ``weak``: not significantly better ones on these images, or it closes less than 3/4 of the gap from random patches
      to full compute or the oracle. Controls that do not look must end here.
    * ``healthy``: better ones.

    Args:
        certificate: its numbers.
        sign: 1 where a higher metric is better, else -1.
        count: images. A difference of two metrics counts from two standard errors of a difference of two shares.
    """
    rate, recall = certificate["rate"], certificate.get("recall")
    if rate >= 1 - EXTREME_RATE:
        return "all_on"
    if rate <= EXTREME_RATE:
        return "all_off"
    routed, random = certificate["score_routed"], certificate["score_random"]
    shares = [min(abs(value), 1.0) for value in (routed, random)]
    noise = 2 * (sum(share * (1 - share) for share in shares) / count) ** 0.5
    gain = sign * (routed - random)
    if gain < -noise or (recall is not None and recall < rate - 2 * certificate["recall_error"]):
        return "anti"
    gaps = [certificate.get(name) for name in ("gap_closed", "gap_closed_oracle")]
    closed = min((gap for gap in gaps if gap is not None), default=1.0)
    return "healthy" if gain > noise and closed >= ENOUGH else "weak"


def _gap_closed(sign: float, routed: float, random: float, best: float) -> float | None:
    gap = sign * (best - random)
    return sign * (routed - random) / gap if gap > 0 else None


class _OtherWays:
    """Runs a batch with other choices than the router's: as many random patches, all, and as many by the known box."""

    def __init__(self, model: RoutedModel[Any], has_box: bool) -> None:
        self.model, self.has_box = model, has_box
        self.count = 3 if has_box else 2
        self.recall: list[Tensor] = []

    def __call__(self, batch: Batch) -> Iterator[ModelOutput]:
        encoded = self.model.encode(batch.images, **batch.facts)
        hard_BN = self.model.decide(self.model.evidence(encoded)).hard_BN
        generator = torch.Generator().manual_seed(int(batch.indices[0]))
        lots_BN = torch.rand(hard_BN.shape, generator=generator).to(hard_BN.device)
        yield self.model.dispatch(encoded, _highest(lots_BN, hard_BN.sum(1)))
        yield self.model.dispatch(encoded, everywhere(encoded))
        if self.has_box:
            covered_BN = self.model.grid.covered_by(batch.facts[BOX])
            self.recall.append((covered_BN * hard_BN).sum(1))
            yield self.model.dispatch(encoded, _highest(covered_BN, hard_BN.sum(1)))


def _highest(values_BN: Tensor, count_B: Tensor) -> RoutingDecision:
    """Route of every image as many patches as ``count_B`` says, those with the highest values."""
    rank_BN = values_BN.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    hard_BN = rank_BN < count_B.unsqueeze(1)
    return RoutingDecision(hard_BN, hard_BN.float())


def _gradients(model: RoutedModel[Any], evaluator: Evaluator) -> dict[str, float | None]:
    """Return gradient norms of scores and threshold in one training step, taken on a copy of the model."""
    model = copy.deepcopy(model).train()
    batch = next(evaluator.batches(model.needs))
    with torch.enable_grad(), evaluator.autocast:
        encoded = model.encode(batch.images, **batch.facts)
        scores_BN = encoded.scores_BN = encoded.scores_BN.detach().requires_grad_()
        output = model.train_form(encoded, model.decide(model.evidence(encoded)))
        loss, _ = total_loss(output, evaluator.task, batch.targets)
        threshold = model.threshold
        wanted = [scores_BN] + ([threshold] if isinstance(threshold, nn.Parameter) else [])
        found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, wanted, allow_unused=True)
    norms = [None if gradient is None else float(gradient.norm()) for gradient in (*found, None)]
    return {"grad_norm_scores": norms[0], "grad_norm_threshold": norms[1]}


@torch.no_grad()
def _saturation(model: RoutedModel[Any], evaluator: Evaluator) -> float | None:
    threshold, temperature = model.threshold, model.temperature
    if threshold is None or temperature is None:
        return None
    was_training = model.training
    batch = next(evaluator.batches(model.needs))
    evidence_BN = model.eval().evidence(model.encode(batch.images, **batch.facts))
    model.train(was_training)
    gate_BN = torch.sigmoid((evidence_BN - threshold) / temperature)
    return float(((gate_BN < SATURATED) | (gate_BN > 1 - SATURATED)).cpu().double().mean())
