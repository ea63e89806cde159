"""Is the choice of a model worth anything? The trained model beside its own controls, on the same images.

gap closed = (routed - random) / (full - random)     all three with the same trained model; random at the same compute
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from routing.data import Batch
from routing.evaluation.certificate import router_state
from routing.evaluation.evaluate import Evaluation, Evaluator
from routing.models.base import ModelOutput, VisionModel
from routing.quantities import quantity


def certify_against_controls(model: VisionModel, evaluator: Evaluator, routed: Evaluation) -> dict[str, Any]:
    """Return the certificate of a model that has ``controls``, measured on the evaluator's split.

    Keys: ``state`` (see ``certificate.router_state``), ``rate`` (mean routing ratio), ``share_all_on`` and
    ``share_all_off`` (of images), ``score_routed`` (the task's metric), ``score_<control>`` of every control, and
    ``gap_closed`` (None where random is as good as full).
    """
    assert routed.routing_ratio is not None
    controls = model.controls()

    def ways(batch: Batch) -> Iterator[ModelOutput]:
        return (run(batch.images) for run in controls.values())

    metric = evaluator.task.metric
    found = evaluator.several(model, len(controls), ways)
    scores = {name: evaluation.metrics[metric] for name, evaluation in zip(controls, found, strict=True)}
    ratio, sign = routed.routing_ratio.double(), 1.0 if quantity(evaluator.task.metric).higher_is_better else -1.0
    gap = sign * (scores["full"] - scores["random"])
    certificate: dict[str, Any] = {
        "state": None,
        "rate": float(ratio.mean()),
        "share_all_on": float((ratio == 1).double().mean()),
        "share_all_off": float((ratio == 0).double().mean()),
        "score_routed": routed.metrics[metric],
        **{f"score_{name}": score for name, score in scores.items()},
        "gap_closed": sign * (routed.metrics[metric] - scores["random"]) / gap if gap > 0 else None,
    }
    certificate["state"] = router_state(certificate, sign, len(ratio))
    return certificate
