"""One training gives a curve: the trained model evaluated along its compute knob."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch

from routing.data.progress import note
from routing.evaluation.evaluate import Evaluation, Evaluator
from routing.files.record import OperatingPoint
from routing.models.base import KnobValue, VisionModel

CALIBRATION_IMAGES = 1024


def knob_values(model: VisionModel, evaluator: Evaluator) -> list[KnobValue]:
    """Return the knob values worth evaluating, without the default; a threshold is chosen on these images."""
    if model.knob is None:
        return []
    model.eval()
    with torch.no_grad(), evaluator.autocast:
        count = max(1, CALIBRATION_IMAGES // evaluator.batch_size)
        sample = list(islice(evaluator.batches(model.needs), count))
        facts = {name: [batch.facts[name] for batch in sample] for name in model.needs}
        values = model.knob_values([batch.images for batch in sample], **facts)
    return [value for value in values if value != model.default_knob_value]


def operating_points(
    model: VisionModel,
    evaluator: Evaluator,
    default: Evaluation,
    values: Sequence[KnobValue] = (),
    split: str = "val",
) -> list[OperatingPoint]:
    """Return the default operating point, then one per other knob value, in their order.

    Args:
        default: the evaluation of the model as it is.
        values: knob values, always chosen on the validation split.
        split: prefix of the metrics' names.
    """
    if model.caution is not None:
        note(model.caution)
    params, knob = model.num_parameters(), model.knob or ""
    points = [default.point(knob, model.default_knob_value, True, params, split)]
    for value, evaluation in zip(values, evaluator.along_knob(model, values) if values else (), strict=True):
        points.append(evaluation.point(knob, value, False, params, split))
    return points
