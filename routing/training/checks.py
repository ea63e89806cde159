"""What is refused, or said, of a run before anything of it is written."""

from __future__ import annotations

from collections.abc import Callable

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError, choices
from routing.models.base import VisionModel
from routing.training.distillation import check_distillation
from routing.training.loop import check_augment
from routing.training.optimizer import rate_scales
from routing.training.reduction import check_reduction


def check_settings(config: RunConfig, model: VisionModel) -> None:
    """Raise ``InputError`` where the model cannot be trained or evaluated as the run says."""
    check_augment(config.training.augment, model)
    check_reduction(config.training, model)
    check_distillation(config.training, model)
    rate_scales(model, config.training)
    if config.evaluation.knob_value is not None:
        model.check_knob(config.evaluation.knob_value)


def check_untrained(config: RunConfig, model: VisionModel, info: DataInfo, say: Callable[[str], None] | None) -> None:
    """Say which parts of a model its first weights leave untrained.

    Raises:
        InputError: there are some, and nothing is trained.
    """
    if not model.untrained_parts:
        return
    parts, classes = choices(model.untrained_parts), info.num_outputs
    if config.training.num_epochs == 0:
        raise InputError(
            f"training.num_epochs 0 evaluates model.weights as they are, but their {parts} is not for the {classes} "
            f"classes of dataset.name '{config.dataset.name}' (valid: 1 or more)"
        )
    if say is not None:
        say(f"model.weights: no {parts} for these {classes} classes is in them; it starts untrained")
