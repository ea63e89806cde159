"""The optimiser of a training and the learning rate of every step."""

from __future__ import annotations

import math

import torch

from routing.config.training import TrainingSection
from routing.models.base import VisionModel


def make_optimizer(model: VisionModel, settings: TrainingSection) -> torch.optim.Optimizer:
    """Return the optimiser of every trainable parameter; weight decay is left off vectors and scalars (norms, biases).

    AdamW decouples weight decay (arXiv 1711.05101); SGD adds it to the gradient, as torch does.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(groups, settings.learning_rate, momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def learning_rate(settings: TrainingSection, step: int, total_steps: int) -> float:
    """Return the learning rate of a step (from 0): linear warm-up, then constant, or cosine or linear to zero."""
    warmup = int(settings.warmup_fraction * total_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.lr_schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, total_steps - warmup)
    if settings.lr_schedule == "linear":
        return settings.learning_rate * (1 - progress)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
