"""Configuration of training phases, free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from routing.section import Section

Word = Annotated[str, Field(min_length=1, max_length=80)]


class AugmentSection(Section):
    """How training images are varied; the whole batch at once, on the device."""

    crop: int = Field(default=0, ge=0, le=64, description="Shift each image by up to so many pixels; 0 is off.")
    flip: bool = Field(default=False, description="Mirror images left to right, each with probability one half.")


class PhaseSection(Section):
    """One phase of training: what is trained, on which terms of the loss, for how long. The rest is frozen."""

    name: str = Field(default="", max_length=80, description="Name in the history; the trained parts where not given.")
    parts: tuple[Word, ...] = Field(min_length=1, description="Trained parts of the model; all others are frozen.")
    losses: tuple[Word, ...] | None = Field(
        default=None, min_length=1, description="Terms of the loss this phase trains on (task, budget, ...); null: all."
    )
    epochs: int | None = Field(default=None, ge=1, le=10_000, description="The phase ends after so many epochs.")
    patience: int | None = Field(
        default=None, ge=1, le=10_000, description="The phase ends after so many epochs without a better validation."
    )

    @property
    def label(self) -> str:
        """The phase's name in the history."""
        return self.name or "+".join(self.parts)


def check_phases(phases: Sequence[PhaseSection], alternating: bool, num_epochs: int) -> None:
    """Raise ``ValueError`` where declared phases cannot fill ``num_epochs`` as their order says.

    In order, each phase must be reachable and all together must fill the run; phases that alternate must all end.
    """
    endless = [phase for phase in phases if phase.epochs is None and phase.patience is None]
    if alternating:
        if endless:
            raise ValueError(
                f"training.phases: '{endless[0].label}' never ends; a phase that alternates needs epochs or patience"
            )
        return
    if endless and endless[0] is not phases[-1]:
        raise ValueError(
            f"training.phases: '{endless[0].label}' has neither epochs nor patience, so that no phase after it runs"
        )
    open_ended = [phase for phase in phases if phase.epochs is None or phase.patience is not None]
    filled = sum(phase.epochs or 0 for phase in phases if phase not in open_ended)
    if open_ended and filled >= num_epochs:
        raise ValueError(
            f"training.phases: {filled} fixed epochs of training.num_epochs {num_epochs} leave none for "
            f"'{open_ended[0].label}'"
        )
    if phases and not open_ended and filled != num_epochs:
        raise ValueError(f"training.phases last {filled} epochs in all, but training.num_epochs is {num_epochs}")
