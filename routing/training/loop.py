"""One epoch of training, and nothing else: no files, no evaluation."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from routing.config import TrainingSection
from routing.data import DataInfo, Split, batches
from routing.errors import TrialFailed
from routing.models.base import ModelOutput, VisionModel
from routing.tasks import Task
from routing.training.seeding import epoch_order


def make_optimizer(model: VisionModel, settings: TrainingSection) -> torch.optim.Optimizer:
    """Return AdamW over every trainable parameter; weight decay is left off vectors and scalars (norms, biases)."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, fused=True)


def learning_rate(settings: TrainingSection, step: int, total_steps: int) -> float:
    """Return the learning rate of a step (from 0): linear warm-up, then constant or cosine to zero."""
    warmup = int(settings.warmup_fraction * total_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.lr_schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, total_steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def total_loss(output: ModelOutput, task: Task, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of the task's loss and the model's own terms, and every term by name."""
    terms = {"task": task.loss(output.prediction, targets), **output.losses}
    return torch.stack([term.reshape(()) for term in terms.values()]).sum(), terms


def train_epoch(
    model: VisionModel,
    split: Split,
    info: DataInfo,
    task: Task,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSection,
    *,
    epoch: int,
    seed: int,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Train one epoch (from 1) and return its mean loss terms and its seconds.

    Raises:
        TrialFailed: the loss is NaN or infinite.
    """
    model.train()
    steps = math.ceil(len(split) / settings.batch_size)
    total_steps = steps * settings.num_epochs
    started = time.perf_counter()
    sums: dict[str, Tensor] = {}
    order = epoch_order(seed, epoch, len(split))
    for index, batch in enumerate(batches(split, info, settings.batch_size, order)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, (epoch - 1) * steps + index, total_steps)
        with autocast:
            output = model(batch.images)
            loss, terms = total_loss(output, task, batch.targets)
        optimizer.zero_grad()
        loss.backward()
        if settings.grad_clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimizer.step()
        for name, value in {"train_loss": loss, **{f"train_loss_{name}": term for name, term in terms.items()}}.items():
            sums[name] = sums.get(name, torch.zeros((), device=loss.device)) + value.detach() * len(batch.targets)
    means = {name: float(value) / len(split) for name, value in sums.items()}
    if not math.isfinite(means["train_loss"]):
        bad = next((name for name, value in means.items() if not math.isfinite(value)), "train_loss")
        raise TrialFailed(f"{bad} is {means[bad]} in epoch {epoch}; try a lower training.learning_rate")
    return {**means, "epoch_seconds": time.perf_counter() - started}
