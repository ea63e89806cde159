"""One epoch of training, and nothing else: no files, no evaluation."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from routing.config.training import AugmentSection, TrainingSection
from routing.data import Batch, DataInfo, Split, batches, num_steps
from routing.data.augment import Augment
from routing.errors import InputError, TrialFailed, choices
from routing.evaluation.tasks import Criterion, total_loss
from routing.models.base import ModelOutput, VisionModel
from routing.training.optimizer import learning_rate, set_learning_rate
from routing.training.phases import Phase, Turn, training_mode
from routing.training.seeding import epoch_generator, epoch_order


def check_augment(settings: AugmentSection, model: VisionModel) -> None:
    """Raise ``InputError`` where the model needs places in the image that would no longer be true."""
    if model.needs and (settings.crop or settings.flip):
        raise InputError(
            f"training.augment moves images, and the {choices(model.needs)} this model needs would not move along; "
            "switch it off (training.augment.crop 0, training.augment.flip false)"
        )


def make_augment(settings: AugmentSection, seed: int, epoch: int) -> Augment | None:
    """Return what varies the images of an epoch, or None; it depends on seed and epoch only, as their order does."""
    if not settings.crop and not settings.flip:
        return None
    return Augment(settings.crop, settings.flip, epoch_generator(seed, epoch, "augment"))


def train_epoch(
    model: VisionModel,
    split: Split,
    info: DataInfo,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSection,
    *,
    turn: Turn,
    seed: int,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Train one epoch of a phase and return its mean loss terms and its seconds.

    Raises:
        TrialFailed: the loss is NaN or infinite.
        InputError: the phase's loss does not depend on anything it trains.
    """
    steps = num_steps(len(split), settings.batch_size)
    total_steps, first_step = steps * turn.num_epochs, steps * (turn.epoch - turn.first_epoch)
    started = time.perf_counter()
    sums: dict[str, Tensor] = {}
    order = epoch_order(seed, turn.epoch, len(split))
    augment = make_augment(settings.augment, seed, turn.epoch)
    with training_mode(model, turn.phase):
        for index, batch in enumerate(batches(split, info, settings.batch_size, order, model.needs, augment)):
            set_learning_rate(optimizer, learning_rate(settings, first_step + index, total_steps))
            with autocast:
                output = _forward(model, batch)
                loss, terms = total_loss(output, criterion, batch.targets, turn.phase.losses)
            _step(model, loss, optimizer, settings.grad_clip, turn.phase)
            for name, value in {"": loss, **{f"_{name}": term for name, term in terms.items()}}.items():
                total = sums.get(name, torch.zeros((), device=loss.device))
                sums[name] = total + value.detach() * len(batch.targets)
    means = {f"train_loss{name}": float(value) / len(split) for name, value in sums.items()}
    if not math.isfinite(means["train_loss"]):
        bad = next((name for name, value in means.items() if not math.isfinite(value)), "train_loss")
        raise TrialFailed(f"{bad} is {means[bad]} in epoch {turn.epoch}; try a lower training.learning_rate")
    return {**means, "epoch_seconds": time.perf_counter() - started}


def _forward(model: VisionModel, batch: Batch) -> ModelOutput:
    try:
        output: ModelOutput = model(batch.images, **batch.facts)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"training.batch_size {len(batch.targets)}: the batch norm of this model needs more than one value per "
            "channel (valid: 2 or more)"
        ) from None
    return output


def _step(model: VisionModel, loss: Tensor, optimizer: torch.optim.Optimizer, grad_clip: float, phase: Phase) -> None:
    """Update the parameters that train; the optimiser leaves those without a gradient, frozen ones, as they are."""
    if not loss.requires_grad:
        raise InputError(
            f"training.phases '{phase.name}': the loss ({choices(phase.losses or ['all terms'])}) does not depend on "
            f"what is trained ({choices(phase.parts or ['all parts'])})"
        )
    optimizer.zero_grad()
    loss.backward()
    if grad_clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
