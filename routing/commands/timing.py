"""How long a run would take on this machine, from a few of its steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from routing.config.run import RunConfig
from routing.data import Split
from routing.models import build_model
from routing.runner import evaluate_trained, make_evaluator
from routing.training.distillation import build_teacher
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import make_schedule
from routing.training.seeding import pick_device, prepare_process

_STEPS = 4
_IMAGES = 512


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
    started = time.perf_counter()
    small.run(model)
    validating = (time.perf_counter() - started) * scale
    started = time.perf_counter()
    evaluate_trained(config, model, small, [{"epoch": 1, "train_seconds": training}])
    return RunTime(training + validating, (time.perf_counter() - started) * scale)


def _first(split: Split, count: int) -> Split:
    extra = {name: values[:count] for name, values in split.extra.items()}
    return Split(split.images[:count], split.targets[:count], extra, split.on_device)
