"""One epoch of training, and nothing else: no files, no evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from routing.config.augment import AugmentSection
from routing.config.training import TrainingSection
from routing.data import Batch, DataInfo, Split, batches, num_steps
from routing.data.augment import image_steps, mixing
from routing.errors import InputError, TrialFailed, choices
from routing.evaluation.tasks import Task, total_loss
from routing.models.base import ModelOutput, VisionModel
from routing.training.averaging import WeightAverage
from routing.training.criterion import criterion_of, training_order
from routing.training.distillation import Distillation
from routing.training.optimizer import learning_rate, set_learning_rate
from routing.training.phases import Phase, Turn, training_mode
from routing.training.reduction import TokenReduction
from routing.training.seeding import epoch_generator


def check_augment(settings: AugmentSection, model: VisionModel) -> None:
    """Raise ``InputError`` where the model needs places in the image that would no longer be true."""
    moving = settings.moving()
    if model.needs and moving:
        raise InputError(
            f"training.augment moves images ({choices(moving)}), and the {choices(model.needs)} this model needs would "
            f"not move along; switch it off (training.augment.{moving[0]} "
            f"{str(AugmentSection.model_fields[moving[0]].default).lower()})"
        )


@dataclass
class _Means:
    """Mean loss terms of an epoch and the task's metric of the predictions on training images, batch by batch.

    Sums stay on the device; a metric that is a mean over images needs no more than that, any other all predictions.
    """

    task: Task
    sums: dict[str, Tensor] = field(default_factory=dict)
    predictions: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    images: int = 0

    def add(self, loss: Tensor, terms: dict[str, Tensor], output: ModelOutput, targets: Tensor) -> None:
        self.images += len(targets)
        values = {"loss": loss, **{f"loss_{name}": term for name, term in terms.items()}}
        correct = self.task.per_image(output.prediction.detach(), targets)
        if correct is None:
            self.predictions.append(output.prediction.detach().float())
            self.targets.append(targets)
        else:
            values[self.task.metric] = correct.mean()
        for name, value in values.items():
            total = self.sums.get(name, torch.zeros((), device=loss.device))
            self.sums[name] = total + value.detach() * len(targets)

    def row(self) -> dict[str, float]:
        """Return the columns of the history, ``train_loss`` first."""
        means = {f"train_{name}": float(value) / self.images for name, value in self.sums.items()}
        if self.predictions and math.isfinite(means["train_loss"]):
            value = self.task.headline(torch.cat(self.predictions), torch.cat(self.targets))
            means[f"train_{self.task.metric}"] = value
        return means


def num_updates(settings: TrainingSection, images: int) -> int:
    """Return the steps of the optimiser in an epoch."""
    return math.ceil(num_steps(images, settings.batch_size) / settings.gradient_accumulation_steps)


def train_epoch(
    model: VisionModel,
    split: Split,
    info: DataInfo,
    task: Task,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSection,
    *,
    turn: Turn,
    seed: int,
    autocast: torch.autocast,
    average: WeightAverage | None = None,
    teacher: VisionModel | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
) -> dict[str, float]:
    """Train one epoch of a phase; return its mean loss terms, the task's metric on its batches, and its seconds.

    Args:
        teacher: whom ``settings.distil`` learns from; None: the dense path of the model itself.
        on_step: called after every update with the epoch, how many of its updates are done, and how many it has.

    Raises:
        TrialFailed: the loss is NaN or infinite.
        InputError: the phase's loss does not depend on anything it trains.
    """
    updates = num_updates(settings, len(split) * settings.crops_per_image)
    total_steps, step = updates * turn.num_epochs, updates * (turn.epoch - turn.first_epoch)
    started = time.perf_counter()
    criterion = criterion_of(settings, task, split, info.num_outputs)
    order = training_order(settings, seed, turn.epoch, split)
    means = _Means(task)
    augment = image_steps(settings.augment, info, epoch_generator(seed, turn.epoch, "augment"))
    mix = mixing(settings.augment, info, epoch_generator(seed, turn.epoch, "mix"))
    reduction = TokenReduction(settings, model, epoch_generator(seed, turn.epoch, "keep_rate"))
    distillation = Distillation(settings.distil, teacher)
    with training_mode(model, turn.phase):
        found = batches(split, info, settings.batch_size, order, model.needs, augment)
        for group in _grouped(found, settings.gradient_accumulation_steps):
            set_learning_rate(optimizer, learning_rate(settings, step, total_steps))
            group_size = sum(len(batch.targets) for batch in group)
            optimizer.zero_grad()
            for batch in group:
                images, targets = batch.images, batch.targets
                if mix is not None:
                    images, targets = mix(images, targets)
                if settings.channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                with autocast, reduction.batch():
                    output = _forward(model, images, batch.facts)
                    distillation.add(model, output, images, batch.facts)
                    loss, terms = total_loss(output, criterion, targets, turn.phase.losses)
                _check_depends(loss, turn.phase)
                (loss * (len(batch.targets) / group_size)).backward()
                means.add(loss, terms, output, targets if mix is None else targets.argmax(dim=1))
            if settings.grad_clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimizer.step()
            if average is not None:
                average.update(model)
            step += 1
            if on_step is not None:
                on_step(turn.epoch, step - updates * (turn.epoch - turn.first_epoch), updates)
    row = means.row()
    if not math.isfinite(row["train_loss"]):
        bad = next((name for name, value in row.items() if not math.isfinite(value)), "train_loss")
        raise TrialFailed(f"{bad} is {row[bad]} in epoch {turn.epoch}; try a lower training.learning_rate")
    return {**row, "epoch_seconds": time.perf_counter() - started}


def _grouped(found: Iterator[Batch], count: int) -> Iterator[list[Batch]]:
    """Yield the batches of every step of the optimiser; the last may have fewer."""
    group: list[Batch] = []
    for batch in found:
        group.append(batch)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group


def _forward(model: VisionModel, images: Tensor, facts: dict[str, Tensor]) -> ModelOutput:
    try:
        output: ModelOutput = model(images, **facts)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"training.batch_size {len(images)}: the batch norm of this model needs more than one value per "
            "channel (valid: 2 or more)"
        ) from None
    return output


def _check_depends(loss: Tensor, phase: Phase) -> None:
    if not loss.requires_grad:
        raise InputError(
            f"training.phases '{phase.name}': the loss ({choices(phase.losses or ['all terms'])}) does not depend on "
            f"what is trained ({choices(phase.parts or ['all parts'])})"
        )
