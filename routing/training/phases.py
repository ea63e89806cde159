"""Training schedules: a list of phases, each training some parts of a model while the others stay bit-identical.

The current phase is a function of the history alone, so that a resumed run continues inside its phase.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from routing.config.training import TrainingSection
from routing.errors import InputError, choices, nearest
from routing.evaluation.tasks import Task
from routing.models.base import VisionModel
from routing.models.layers import parameters_of
from routing.quantities import quantity
from routing.training.distillation import distillation_terms

JOINT = "joint"


@dataclass(frozen=True)
class Phase:
    """One phase. ``parts`` are trained (None: all) on the loss terms ``losses`` (None: all).

    It ends after ``epochs``, or after ``patience`` epochs without a better validation, whichever comes first.
    """

    name: str
    parts: tuple[str, ...] | None = None
    losses: tuple[str, ...] | None = None
    epochs: int | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Turn:
    """The next epoch of a run (from 1), its phase, and the epochs its learning-rate schedule spans."""

    epoch: int
    phase: Phase
    first_epoch: int
    num_epochs: int


class _Stall:
    """Counts epochs in a row without a lower watched value; NaN is never lower."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.best, self.waited = math.inf, 0

    def see(self, value: float) -> None:
        self.waited = 0 if value < self.best else self.waited + 1
        self.best = min(self.best, value) if value == value else self.best

    def is_over(self) -> bool:
        return self.patience is not None and self.waited >= self.patience


@dataclass(frozen=True)
class Schedule:
    """The phases of a run: once and in order, or again and again (``cyclic``).

    The run ends after ``num_epochs``, after its last phase, or after ``patience`` epochs without a better validation.
    Phases in order each have a learning-rate schedule of their own; phases that alternate share that of the run, and
    the optimiser keeps the state of a frozen part for its next turn.
    """

    phases: tuple[Phase, ...]
    num_epochs: int
    cyclic: bool
    patience: int | None
    task: Task

    def turn(self, history: Sequence[dict[str, Any]]) -> Turn | None:
        """Return the next epoch's phase after this history, or None at the end of the run."""
        index, first_epoch = 0, 1
        run_stall, phase_stall = _Stall(self.patience), _Stall(self.phases[0].patience)
        for epoch, row in enumerate(history, start=1):
            value = self._watched(row)
            run_stall.see(value)
            phase_stall.see(value)
            phase = self.phases[index]
            if phase_stall.is_over() or epoch - first_epoch + 1 == phase.epochs:
                index, first_epoch = index + 1, epoch + 1
                if index == len(self.phases) and not self.cyclic:
                    return None
                index %= len(self.phases)
                phase_stall = _Stall(self.phases[index].patience)
        if run_stall.is_over() or len(history) >= self.num_epochs:
            return None
        phase = self.phases[index]
        if self.cyclic:
            return Turn(len(history) + 1, phase, 1, self.num_epochs)
        left = self.num_epochs - first_epoch + 1
        return Turn(len(history) + 1, phase, first_epoch, min(left, phase.epochs or left))

    def _watched(self, row: dict[str, Any]) -> float:
        """Return the value that patience monitors: validation loss, or the task's metric without one."""
        if "val_loss" in row:
            return float(row["val_loss"])
        value = float(row[f"val_{self.task.metric}"])
        return -value if quantity(self.task.metric).higher_is_better else value


def make_schedule(settings: TrainingSection, model: VisionModel, task: Task) -> Schedule:
    """Return the schedule of a configuration for this model.

    Raises:
        InputError: a phase names a part or loss term the model does not have, or has nothing to train; the model has
            no alternation of its own and none is declared.
    """
    cyclic = settings.schedule == "alternating"
    phases = tuple(Phase(p.label, p.parts, p.losses, p.epochs, p.patience) for p in settings.phases)
    if not phases and cyclic:
        phases = tuple(Phase(name, parts, epochs=1) for name, parts in model.alternation().items())
        if not phases:
            raise InputError(
                f"training.schedule 'alternating': {type(model).__name__} has no phases of its own; declare them in "
                f"training.phases (parts: {choices(_trainable_parts(model))})"
            )
    for phase in phases:
        _check_phase(phase, model, (*model.loss_terms(), *distillation_terms(settings.distil)))
    phases = phases or (Phase(JOINT),)
    return Schedule(phases, settings.num_epochs, cyclic, settings.patience, task)


def _check_phase(phase: Phase, model: VisionModel, terms: tuple[str, ...]) -> None:
    where, parts = f"training.phases '{phase.name}'", model.parts()
    assert phase.parts is not None
    for name in phase.parts:
        if name not in parts:
            raise InputError(
                f"{where}: {type(model).__name__} has no part '{name}'{nearest(name, parts)} "
                f"(valid: {choices(_trainable_parts(model))})"
            )
    if not set(phase.parts) & set(_trainable_parts(model)):
        raise InputError(
            f"{where}: nothing to train in {choices(phase.parts)} (valid: {choices(_trainable_parts(model))})"
        )
    for term in phase.losses or ():
        if term not in terms:
            raise InputError(
                f"{where}: {type(model).__name__} has no loss term '{term}'{nearest(term, terms)} "
                f"(valid: {choices(terms)})"
            )


def _trainable_parts(model: VisionModel) -> list[str]:
    return [name for name, items in model.parts().items() if any(p.requires_grad for p in parameters_of(items))]


@contextmanager
def training_mode(model: VisionModel, phase: Phase) -> Iterator[None]:
    """Put the model into training mode with all but the phase's parts frozen; thaw them on leaving.

    Frozen: no gradient, and eval mode, which holds batch-norm statistics still.
    """
    model.train()
    if phase.parts is None:
        yield
        return
    parts = model.parts()
    trained = [item for name in phase.parts for item in parts[name]]
    kept = {id(parameter) for parameter in parameters_of(trained)}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in kept]
    for name, items in parts.items():
        for item in items:
            if name not in phase.parts and isinstance(item, nn.Module):
                item.eval()
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
