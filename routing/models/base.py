"""The interface of models to training, evaluation and the compute ledger.

Shapes: B batch, N units (patches, tokens, scales), D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.attention import AttentionLayer

if TYPE_CHECKING:
    from routing.config.section import ModelSection
    from routing.models.chain import Chain
    from routing.models.exits.model import EarlyExit
    from routing.models.units import RoutedModel
    from routing.models.vit.classifier import TransformerClassifier

KnobValue = float | str
Formula = Callable[[Sequence[Any], Any], int]
"""Multiply-adds of one call of an operator, from its inputs (tensors as they are) and its output."""

PartName = Any
"""Name of a part: a word, or a ``PartKey`` where its cost depends on how it is run."""


@dataclass(frozen=True)
class PartKey:
    """A part whose shape changes with the knob: its ``kind``, on how many ``tokens``, under what ``setting`` if any."""

    kind: str
    tokens: int
    setting: Any = None

    def __str__(self) -> str:
        return f"{self.kind}@{self.tokens}" + ("" if self.setting is None else f" ({self.setting})")


@dataclass
class ModelOutput:
    """What one forward pass returns.

    prediction: logits (B, classes), or quality (B,).
    losses: auxiliary loss terms, weighted already; the task's own loss is added by training.
    auxiliary: further predictions for the same targets, name -> (weight, prediction); training adds weight times the
        task's loss of each as a term of that name.
    metrics: scalars for the history (threshold, temperature, ...), as tensors where they are computed on the device.
    units_executed: rows each conditional part actually processed, per image: name -> (B,); a part that is not named
        here runs once per image. The compute ledger multiplies them by the cost of one row.
    routing_ratio: share of units on the expensive path per image (B,), or None where nothing is routed.
    tokens: of a transformer, tokens (B, K, D) after the last block that are still the image's. kept: (B, K) which ones;
        None: all of them. left: (B, K) 0 where one of them is hidden from the others, else 1; None: none is.
    decided: of a routed model in inference, which units (B, N) took the expensive path.
    """

    prediction: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: dict[str, tuple[float, Tensor]] = field(default_factory=dict)
    metrics: dict[str, float | Tensor] = field(default_factory=dict)
    units_executed: dict[PartName, Tensor] = field(default_factory=dict)
    routing_ratio: Tensor | None = None
    decided: Tensor | None = None
    tokens: Tensor | None = None
    kept: Tensor | None = None
    left: Tensor | None = None


@dataclass(frozen=True)
class CountedPart:
    """A piece of a model whose multiply-adds are counted on its own.

    module: what is counted; ``inputs`` are example inputs of **one** unit (batch dimension 1).
    per_unit: closed form, multiply-adds of one unit, written down independently of the count.
    static_units: units per image of a part that always runs; None where ``units_executed`` decides.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    per_unit: int
    static_units: int | None = 1


class VisionModel(nn.Module, ABC):
    """Base of every model. ``forward`` and ``counted_parts`` are required; all other methods are optional capabilities.

    ``knob`` names the compute knob that can be moved after training (``threshold``, ``share``), or is None.
    ``has_closed_form`` is False of a network whose multiply-adds are only counted as they are executed: it has one
    part, ``network``, whose units are multiply-adds.
    ``needs`` names facts of the data beside the pixels (``box``) that ``forward``, ``along_knob`` and, batch by batch,
    ``knob_values`` are handed as keyword arguments; nearly every model needs none. ``untrained_parts`` are those that
    the weights it starts from (``model.weights``) did not fit. ``dense_flops`` are multiply-adds per image with nothing
    skipped; None: its cost as it is. ``not_shipped`` is the reason why it cannot be exported (``is told where the
    object is``), None where it can. ``added_parts`` are
    those that weights of a run may lack, or have beyond this model's.
    """

    knob: str | None = None
    has_closed_form: bool = True
    needs: tuple[str, ...] = ()
    untrained_parts: tuple[str, ...] = ()
    dense_flops: float | None = None
    not_shipped: str | None = None
    added_parts: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, images: Tensor) -> ModelOutput:
        """Predict from normalised images (B, C, H, W)."""

    def library_config(self) -> dict[str, Any] | None:
        """Return what a library built the model from (see ``ModelSection.with_library_config``); None: from a name."""
        return None

    @property
    def caution(self) -> str | None:
        """What has to be said beside its numbers, in one line; None where nothing has."""
        return None

    @property
    def routed(self) -> RoutedModel[Any] | None:
        """The model as one that decides unit by unit (``units.RoutedModel``); None where it does not."""
        return None

    @property
    def prunable(self) -> TransformerClassifier | None:
        """The model as one whose tokens can be pruned; None where it has none."""
        return None

    def traceable(self) -> nn.Module:
        """Return the module that an exporter traces: normalised images to predictions, the knob's value a constant."""
        return Prediction(self)

    @property
    def exiting(self) -> EarlyExit | None:
        """The model as one that images can leave early; None where they cannot."""
        return None

    def controls(self) -> dict[str, Callable[[Tensor], ModelOutput]]:
        """Return other ways of running the trained model on images: ``random``, ``full`` and more; none by default."""
        return {}

    def dense_path(self, images: Tensor, **facts: Tensor) -> ModelOutput:
        """Predict with nothing skipped."""
        full = self.controls().get("full")
        output: ModelOutput = self(images, **facts) if full is None else full(images)
        return output

    @property
    def skips_in_training(self) -> bool:
        """Whether a training step leaves out some of what ``dense_path`` computes, or predicts before its end."""
        return "full" in self.controls()

    def distilled(self, output: ModelOutput) -> list[tuple[float, Tensor]]:
        """Return the predictions of a training step that learn from a teacher, each with its weight."""
        return [(1.0, output.prediction)]

    def initialise(self, section: ModelSection) -> None:
        """Load the weights that a training starts from, where the section names any."""

    @abstractmethod
    def counted_parts(self) -> dict[PartName, CountedPart]:
        """Return every part that costs multiply-adds, by name."""

    def executed_parts(self, units_executed: Mapping[PartName, Any]) -> dict[PartName, CountedPart]:
        """Return the parts that these units belong to; a model whose parts change shape with its knob overrides it."""
        return self.counted_parts()

    def handles(self) -> dict[str, Formula]:
        """Return formulas for operators of the model that torch's counter has none for: operator -> formula."""
        return {}

    def nominal_units(self) -> dict[PartName, float]:
        """Return the units per image expected of every conditional part before training (from the budget)."""
        return {}

    @property
    def default_knob_value(self) -> KnobValue | None:
        """The knob's value as trained."""
        return None

    def knob_values(self, images: Sequence[Tensor]) -> list[KnobValue]:
        """Return the values worth evaluating, chosen on normalised validation batches; without the default."""
        return []

    def along_knob(self, images: Tensor, values: Sequence[KnobValue]) -> Iterator[ModelOutput]:
        """Yield one output per knob value; a model overrides it to compute once what does not depend on the knob."""
        trained = self.default_knob_value
        try:
            for value in values:
                self.set_knob(value)
                yield self(images)
        finally:
            if trained is not None:
                self.set_knob(trained)

    def check_knob(self, value: KnobValue) -> None:
        """Raise ``InputError`` for a value the knob cannot have; checked before training, so that none is wasted."""
        if self.knob is None:
            raise InputError(f"evaluation.knob_value {value}: {type(self).__name__} has no compute knob")

    def set_knob(self, value: KnobValue) -> None:
        """Make ``value`` the default operating point; a value the knob cannot have is an ``InputError``.

        A model with a ``knob`` overrides it; one without has no value that could be set.
        """
        self.check_knob(value)
        raise InputError(f"evaluation.knob_value {value}: {type(self).__name__} cannot set its knob '{self.knob}'")

    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        """Return the named parts that a training schedule can freeze; together they hold every parameter."""
        children: dict[str, list[nn.Module | nn.Parameter]] = {name: [child] for name, child in self.named_children()}
        return children | {name: [parameter] for name, parameter in self.named_parameters(recurse=False)}

    def depth_order(self) -> list[list[nn.Parameter]]:
        """Return the parameters of every layer from input to output, for ``training.layer_decay``; none by default."""
        return []

    def alternation(self) -> dict[str, tuple[str, ...]]:
        """Return the phases of ``training.schedule: alternating``, name -> trainable parts; none by default."""
        return {}

    def loss_terms(self) -> tuple[str, ...]:
        """Return the names of the loss terms the model trains on: the task's and its own."""
        return ("task",)

    def chain(self) -> Chain:
        """Return the model as a chain of stages on what ``entry`` gives, so that images can leave it early."""
        raise InputError(f"{type(self).__name__} cannot be cut into stages")

    def entry(self, images: Tensor) -> Tensor:
        """Return normalised images (B, C, H, W) as the first stage of ``chain`` takes them."""
        return images

    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the attention that the prediction reads, layer by layer: name -> (B, H, Q, T), from query to key.

        The T tokens are the cells of a square grid, row by row; a class token, where the model has one, is token 0.
        Q is 1 where a layer has one row that decides (a map over positions), else T.
        """
        raise InputError(f"{type(self).__name__} has no attention to look at")

    def inner_attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return further attention (B, H, T, T) that only forms the one that decides, by name; none by default."""
        return {}

    def attention_layers(self, images: Tensor) -> list[AttentionLayer]:
        """Return the attention of every layer with its place on the image; by default that of ``attention_maps``."""
        return [AttentionLayer.on_a_square(name, maps) for name, maps in self.attention_maps(images).items()]

    def fusion_weights(self, images: Tensor) -> dict[int, Tensor]:
        """Return the weight (B,) of every stage that a fusion of stages gives it, for normalised images."""
        raise InputError(f"{type(self).__name__} has no fusion of stages to look at")

    def num_parameters(self) -> int:
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def closed_form(self, units_executed: Mapping[PartName, Tensor], batch_size: int) -> Tensor:
        """Return multiply-adds per image (B,), int64: the sum over parts of units times cost of one unit."""
        total, always = torch.zeros(batch_size, dtype=torch.int64), 0
        for name, part in self.executed_parts(units_executed).items():
            if part.static_units is None:
                total += units_executed[name].to("cpu", torch.int64) * part.per_unit
            else:
                always += part.static_units * part.per_unit
        return total.add_(always)

    def expected_flops(self) -> float:
        """Return multiply-adds per image expected before training: closed form at the nominal units."""
        nominal = self.nominal_units()
        return float(
            sum(
                part.per_unit * (nominal[name] if part.static_units is None else part.static_units)
                for name, part in self.counted_parts().items()
            )
        )


class Prediction(nn.Module):
    """A model as one call from normalised images (B, C, H, W) to predictions."""

    def __init__(self, model: VisionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) or quality (B,)."""
        output: ModelOutput = self.model(images)
        return output.prediction
