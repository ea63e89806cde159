"""The optimiser of a training: which parameters learn at which rate, and the rate of every step."""

from __future__ import annotations

import math

import torch
from torch import nn

from routing.config.training import TrainingSection
from routing.errors import InputError, choices, nearest
from routing.models.base import VisionModel
from routing.models.layers import parameters_of

SCALE = "rate_scale"
"""Key of a parameter group: its learning rate as a multiple of the schedule's."""


def make_optimizer(model: VisionModel, settings: TrainingSection) -> torch.optim.Optimizer:
    """Return the optimiser of every trainable parameter; weight decay is left off vectors and scalars (norms, biases).

    AdamW decouples weight decay (arXiv 1711.05101); SGD adds it to the gradient, as torch does.

    Raises:
        InputError: a multiplier of a part that the model does not have; layer decay of a model without depth order;
            a model in which nothing can be trained.
    """
    scales = rate_scales(model, settings)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise InputError("model: nothing can be trained: it has no parameter that requires a gradient")
    for parameter in sorted(trainable, key=lambda p: p.ndim <= 1):  # stable: matrices first
        groups.setdefault((parameter.ndim > 1, scales.get(id(parameter), 1.0)), []).append(parameter)
    described = [
        {"params": parameters, "weight_decay": settings.weight_decay if is_matrix else 0.0, SCALE: scale}
        for (is_matrix, scale), parameters in groups.items()
    ]
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        sgd = torch.optim.SGD(described, settings.learning_rate, momentum, nesterov=momentum > 0, fused=True)
        if momentum > 0:
            _start_momentum(sgd)
        return sgd
    return torch.optim.AdamW(described, lr=settings.learning_rate, fused=True)


def _start_momentum(sgd: torch.optim.SGD) -> None:
    """Start every momentum at 0, so that the first step is as without.

    torch's fused step fails where only some parameters have a momentum, as when a part first learns at a later step.
    """
    for group in sgd.param_groups:
        for parameter in group["params"]:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, that of each group in its proportion."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[SCALE]


def rate_scales(model: VisionModel, settings: TrainingSection) -> dict[int, float]:
    """Return the learning rate of parameters as a multiple of the schedule's, by ``id``; 1 where not named.

    A part's multiplier times ``layer_decay`` to the power of the layers that follow (arXiv 2106.08254, as BEiT does).
    """
    scales: dict[int, float] = {}
    parts = model.parts()
    for name, factor in settings.learning_rate_multipliers.items():
        if name not in parts:
            raise InputError(
                f"training.learning_rate_multipliers: {type(model).__name__} has no part '{name}'"
                f"{nearest(name, parts)} (valid: {choices(parts)})"
            )
        scales |= {id(parameter): factor for parameter in parameters_of(parts[name])}
    if settings.layer_decay == 1:
        return scales
    layers = model.depth_order()
    if not layers:
        raise InputError(
            f"training.layer_decay {settings.layer_decay:g}: {type(model).__name__} does not say which of its layers "
            "follow each other (valid: 1)"
        )
    for following, parameters in enumerate(reversed(layers)):
        for parameter in parameters:
            scales[id(parameter)] = scales.get(id(parameter), 1.0) * settings.layer_decay**following
    return scales


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
