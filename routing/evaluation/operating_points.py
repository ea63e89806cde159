"""One training gives a curve: the trained model evaluated along its compute knob on the validation split."""

from __future__ import annotations

from itertools import islice

import torch

from routing.evaluation.evaluate import Evaluation, Evaluator
from routing.models.base import VisionModel
from routing.record import OperatingPoint

CALIBRATION_IMAGES = 1024


def operating_points(
    model: VisionModel, evaluator: Evaluator, default: Evaluation, *, curve: bool = True, split: str = "val"
) -> list[OperatingPoint]:
    """Return the default operating point, then one per other knob value, in the order of the knob's values.

    Args:
        default: the evaluation of the model as it is.
        curve: False evaluates nothing more.
    """
    params = model.num_parameters()
    knob = model.knob or ""
    points = [default.point(knob, model.default_knob_value, True, params, split)]
    if not curve or model.knob is None:
        return points
    model.eval()
    with torch.no_grad(), evaluator.autocast:
        count = max(1, CALIBRATION_IMAGES // evaluator.batch_size)
        sample = list(islice(evaluator.batches(model.needs), count))
        facts = {name: [batch.facts[name] for batch in sample] for name in model.needs}
        values = model.knob_values([batch.images for batch in sample], **facts)
    values = [value for value in values if value != model.default_knob_value]
    for value, evaluation in zip(values, evaluator.along_knob(model, values), strict=True):
        points.append(evaluation.point(knob, value, False, params, split))
    return points
