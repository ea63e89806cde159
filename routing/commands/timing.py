"""How long a run would take on this machine, from a few of its steps."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from routing.config.run import RunConfig
from routing.data import Split
from routing.evaluation.costs import measured_costs
from routing.evaluation.evaluate import Evaluator
from routing.evaluation.latency import measure_latency
from routing.evaluation.operating_points import knob_values
from routing.models import build_model
from routing.models.base import KnobValue, VisionModel
from routing.runner import evaluate_trained, make_evaluator
from routing.training.distillation import build_teacher
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import make_schedule
from routing.training.seeding import pick_device, prepare_process

_ALONE = {"operating_points": False, "costs": ()}
_STEPS = 4
_IMAGES = 512
_POINTS = 12
"""Of more than twice as many operating points, so many are timed, and twice as many."""


@dataclass(frozen=True)
class RunTime:
    """Seconds of one epoch, its validation included, and of what follows the last one."""

    epoch: float
    after: float

    def of(self, epochs: float) -> float:
        """Return the seconds of a run of this many epochs."""
        return epochs * self.epoch + self.after


def time_run(config: RunConfig) -> RunTime:
    """Time a few steps of a run, one before them to warm up, and its evaluation on some images of each split.

    Raises:
        InputError, TrialFailed: what the run itself would raise.
    """
    prepare_process(config.seed, config.threads)
    device, data = pick_device(config.device), config.dataset.load()
    model = build_model(config.model, data.info).to(device)
    evaluator = make_evaluator(config, data, "val", device)
    schedule = make_schedule(config.training, model, evaluator.task)
    model.initialise(config.model)
    teacher = build_teacher(config.training.distil, config.model, data.info, device)
    small = replace(evaluator, split=_first(evaluator.split, _IMAGES))
    steps = config.training.batch_size * config.training.gradient_accumulation_steps
    train, turn = _first(data["train"].to(device), _STEPS * steps), schedule.turn([])
    training = 0.0
    if turn is not None:
        optimizer = make_optimizer(model, config.training)
        for split in (_first(train, steps), train):
            row = train_epoch(
                model, split, data.info, evaluator.task, optimizer, config.training, turn=turn, seed=config.seed,
                autocast=evaluator.autocast, teacher=teacher,
            )  # fmt: skip
            training = row["epoch_seconds"] * len(data["train"]) / len(split)
    scale = len(evaluator.split) / len(small.split)
    validating = _seconds(lambda: small.run(model)) * scale
    return RunTime(training + validating, _after(config, model, small, scale))


def _after(config: RunConfig, model: VisionModel, small: Evaluator, scale: float) -> float:
    """Return the seconds of what follows training: of many operating points, from the time that a few take.

    Args:
        scale: images of the whole split for one of ``small``; timing inference takes as long for any split.
    """
    alone = config.model_copy(update={"evaluation": config.evaluation.model_copy(update=_ALONE)})
    fixed = _seconds(lambda: measure_latency(model, small))
    rest = _seconds(lambda: evaluate_trained(alone, model, small, [{"epoch": 1, "train_seconds": 0.0}]))
    values = knob_values(model, small) if config.evaluation.operating_points else []
    drawn = random.Random(0).sample(values, min(len(values), 2 * _POINTS))  # neighbours in a grid cost alike
    times = [_along(model, small, some) for some in (drawn[: len(drawn) // 2], drawn)]
    points = times[1]
    if len(values) > len(drawn):  # some models evaluate all their points in one pass: only what each adds counts
        points += max(times[1] - times[0], 0.0) / _POINTS * (len(values) - len(drawn))
    return fixed + scale * (max(rest - fixed, 0.0) + points) + _measuring(config, model, small, 1 + len(values))


def _measuring(config: RunConfig, model: VisionModel, small: Evaluator, points: int) -> float:
    """Return the seconds of measuring costs: as many passes for any split, once per point."""
    wanted, size = config.evaluation.costs, config.evaluation.costs_batch_size
    return points * _seconds(lambda: measured_costs(wanted, model, small, [], size)) if wanted else 0.0


def _along(model: VisionModel, evaluator: Evaluator, values: list[KnobValue]) -> float:
    return _seconds(lambda: evaluator.along_knob(model, values)) if values else 0.0


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _first(split: Split, count: int) -> Split:
    extra = {name: values[:count] for name, values in split.extra.items()}
    return Split(split.images[:count], split.targets[:count], extra, split.on_device)
