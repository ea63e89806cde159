"""Configuration of training phases, free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from routing.config.augment import AugmentSection
from routing.config.section import Section

Word = Annotated[str, Field(min_length=1, max_length=80)]
KeepRate = Annotated[float, Field(gt=0, le=1)]
Multiplier = Annotated[float, Field(gt=0, le=1e4)]


class PhaseSection(Section):
    """One phase of training: what is trained, on which terms of the loss, for how long. The rest is frozen."""

    name: str = Field(default="", max_length=80, description="Name in the history; the trained parts where not given.")
    parts: tuple[Word, ...] = Field(min_length=1, description="Trained parts of the model; all others are frozen.")
    losses: tuple[Word, ...] | None = Field(
        default=None, min_length=1, description="Terms of the loss this phase trains on (task, budget, ...); null: all."
    )
    epochs: int | None = Field(default=None, ge=1, le=10_000, description="The phase ends after this many epochs.")
    patience: int | None = Field(
        default=None, ge=1, le=10_000, description="The phase ends after this many epochs without a better validation."
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


class DistilSection(Section):
    """Distillation: what is trained also learns what a teacher says of the same images."""

    weight: float = Field(
        default=0.0,
        ge=0,
        le=1e4,
        description="Weight of the difference from the teacher: divergence for classes, squared error for a quality; "
        "0 is off.",
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="Softens both distributions; the term is scaled by its square.",
    )
    tokens: bool = Field(
        default=False,
        description="Also the squared difference of the tokens that are left after the last block; of transformers.",
    )
    weights: str | None = Field(
        default=None,
        description="The teacher is this model with these weights: the folder of a trained run, or a file as of "
        "model.weights; null: the model's own dense path, as it is at that step.",
    )

    @model_validator(mode="after")
    def _a_teacher_has_a_weight(self) -> DistilSection:
        if self.weights is not None and not self.weight:
            raise ValueError("training.distil.weights teaches nothing at training.distil.weight 0 (valid: above 0)")
        return self


class TrainingSection(Section):
    """How a model is trained."""

    batch_size: int = Field(default=64, ge=1, le=65536, description="Images per forward pass.")
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, le=65536, description="Batches whose gradients make one step: as a batch this much larger."
    )
    num_epochs: int = Field(
        default=4, ge=0, le=10_000, description="Passes over the training split; 0 evaluates model.weights as they are."
    )
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd: with Nesterov momentum.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Nesterov momentum of sgd; 0: plain SGD.")
    learning_rate: float = Field(default=3e-3, gt=0, le=10, description="Peak learning rate.")
    weight_decay: float = Field(
        default=1e-4,
        ge=0,
        le=10,
        description="Weight decay of matrices and convolutions: decoupled (adamw), or a part of the gradient (sgd).",
    )
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Per step, after a linear warm-up: cosine or linear to zero, or constant."
    )
    crops_per_image: int = Field(
        default=1, ge=1, le=1000, description="Times an epoch shows every image, each time another random crop of it."
    )
    learning_rate_multipliers: dict[Word, Multiplier] = Field(
        default={}, description="Learning rate of parts of the model, as multiples: {part: x}."
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Each layer learns at this share of the rate of the next one towards the output; 1 is off. For "
        "models that say their layers' order.",
    )
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1, description="Share of all steps spent warming up.")
    grad_clip: float = Field(default=1.0, ge=0, le=1e6, description="Clip the gradient norm here; 0 is off.")
    loss: Literal["auto", "cross_entropy", "l1", "mse"] = Field(
        default="auto", description="auto: cross_entropy for classes, l1 for quality, which can also have mse."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the target spread over all classes; for classes only."
    )
    class_balance: Literal["none", "weights", "sampling"] = Field(
        default="none",
        description="For unequal classes: weights in the loss by their rarity, or images drawn so that all classes are "
        "equally frequent.",
    )
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay per step of a moving average of the weights, which is evaluated and kept; 0 is off.",
    )
    channels_last: bool = Field(
        default=False,
        description="Lay images and convolutions out with the channels last in training: often faster for conv nets.",
    )
    reuse: bool = Field(
        default=False,
        description="Take the weights of an identical training of this machine; evaluation settings do not count.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Stop after this many epochs without a better validation; null: never.",
    )
    reduce_tokens: bool = Field(
        default=False, description="Train with model.pruning as well, which otherwise acts in evaluation only."
    )
    keep_rates: tuple[KeepRate, KeepRate] | None = Field(
        default=None,
        description="With reduce_tokens: the keep rate of every batch is drawn from this range, so that one training "
        "serves the whole curve; null: as configured.",
    )
    distil: DistilSection = DistilSection()
    pictures_every: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Keep attention and decisions of four validation images every so many epochs; null: never.",
    )
    augment: AugmentSection = AugmentSection()
    schedule: Literal["joint", "alternating"] = Field(
        default="joint",
        description="joint: all parts at once, or the declared phases once and in order; alternating: the declared "
        "phases, or else the model's own, again and again.",
    )
    phases: tuple[PhaseSection, ...] = Field(
        default=(), max_length=64, description="Declared phases; num_epochs stays the limit of the whole run."
    )

    @model_validator(mode="after")
    def _keep_rates_are_a_range(self) -> TrainingSection:
        if self.keep_rates is not None and not self.reduce_tokens:
            raise ValueError("training.keep_rates needs training.reduce_tokens true")
        if self.keep_rates is not None and self.keep_rates[0] > self.keep_rates[1]:
            raise ValueError(f"training.keep_rates {list(self.keep_rates)}: the lower end comes first")
        return self

    @model_validator(mode="after")
    def _phases_fill_the_run(self) -> TrainingSection:
        check_phases(self.phases, self.schedule == "alternating", self.num_epochs)
        return self
