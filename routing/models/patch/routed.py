"""Patch routing: attention scores send each patch of the original image to a big or a small MLP.

    image -> light encoder -> score per patch -> router -> big or small MLP on the cropped patch -> weighted sum -> head

Shapes: B batch, N = g * g patches, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from routing.config.registry import ROUTERS
from routing.data import DataInfo
from routing.errors import InputError, choices
from routing.models.base import KnobValue, ModelOutput
from routing.models.patch.budget import BudgetLoss
from routing.models.patch.model import BRANCHES, PatchModel
from routing.models.patch.parts import Encoded
from routing.models.patch.routers import Router
from routing.models.patch.section import AttentionRoutingSection, BudgetSection
from routing.models.patch.training_forms import FORMS, MASKED
from routing.models.units import RoutingDecision, count_together, everywhere

MASKED_BELOW = 2**30
"""Multiply-adds of the big branch on all rows of a batch, up to which a GPU is not waited for: an estimate."""


class AttentionRouting(PatchModel):
    """A router decides patch by patch; its budget is a share of the compute of full_compute."""

    def __init__(self, section: AttentionRoutingSection, info: DataInfo) -> None:
        settings = section.router
        kind: type[Router] = ROUTERS.get(settings.mode)
        _check_facts(kind, settings.mode, info)
        super().__init__(section, info, branches=("big",) if kind.skips_unrouted else BRANCHES)
        target_ratio = self.target_ratio = self._target_ratio(settings.budget)
        self.router: Router = kind(
            grid=self.grid,
            target_ratio=target_ratio,
            threshold_init=settings.threshold_init,
            temperature=settings.temperature,
            threshold_jitter=settings.threshold_jitter,
        )
        self.needs = self.router.needs
        self.form, self.masked_form = FORMS[settings.training], MASKED[settings.training]
        weight = settings.budget.weight if self.router.trained_by_budget else 0.0
        self.budget = BudgetLoss(settings.budget.loss, weight, settings.budget.target)
        self.budget_in_flops = settings.budget.unit == "flops"
        self.knob, self.not_shipped = self.router.knob, self.router.not_shipped

    @property
    def threshold(self) -> Tensor | None:
        """The router's."""
        return getattr(self.router, "threshold", None)

    @property
    def skips_in_training(self) -> bool:
        """Where its router acts in training, unless it routes a fixed share that is all of them."""
        return self.router.routes_in_training and (self.router.trained_by_budget or self.nominal_ratio() < 1)

    @property
    def temperature(self) -> float | None:
        """The router's."""
        return None if self.threshold is None else self.router.temperature

    def _target_ratio(self, budget: BudgetSection) -> float:
        """Return the share of patches on the big branch that meets the budget."""
        if budget.unit == "ratio":
            return budget.target
        floor = self.cheapest_flops / self.dense_flops
        if budget.target <= floor:
            raise InputError(
                f"model.router.budget.target {budget.target:g} is out of reach: with nothing routed this model costs "
                f"{floor:.3f} of full_compute already (valid: {floor:.3f} < target <= 1)"
            )
        return (budget.target - floor) / (1 - floor)

    def evidence(self, encoded: Encoded) -> Tensor:
        """Return the router's evidence (B, N)."""
        return self.router.evidence(encoded)

    def decide(self, evidence_BN: Tensor) -> RoutingDecision:
        """Ask the router."""
        return self.router.decide(evidence_BN)

    def train_form(self, encoded: Encoded, decision: RoutingDecision) -> ModelOutput:
        """Return the masked form, which both branches and the router learn from."""
        pixels = encoded.pixels
        if self.router.routes_in_training:
            hard, gate = decision.hard_BN.flatten(), decision.gate_BN.flatten()
            form = self.masked_form if self._masks(hard, decision) else self.form
            features = form(self.expert("big"), self.expert("small"), pixels, hard, gate, decision.num_hard)
        else:
            decision = everywhere(encoded)
            features = self.expert("big")(pixels)
        return self.output(self.pool(features, encoded.scores_BN), decision)

    def _masks(self, hard_M: Tensor, decision: RoutingDecision) -> bool:
        """Return whether a training step on a GPU runs the big branch on every row rather than wait for a count.

        A batch norm inside an expert needs exactly the routed rows.
        """
        is_unknown = hard_M.is_cuda and decision.num_hard is None
        return is_unknown and self.rows_are_independent and len(hard_M) * self.expensive_multiply_adds() <= MASKED_BELOW

    def loss_terms(self) -> tuple[str, ...]:
        """The task's, and the budget's where it has a weight."""
        return ("task", "budget") if self.budget.weight > 0 else ("task",)

    def alternation(self) -> dict[str, tuple[str, ...]]:
        """Alternate between the parts that process patches and those that choose among them."""
        pooling = ("aggregator",) if list(self.aggregator.parameters()) else ()
        return {"branches": (*self.branches, *pooling, "head"), "routing": ("encoder", "attention", "router")}

    def nominal_ratio(self) -> float:
        """The budget's, as far as the router can meet it."""
        return self.router.nominal_ratio()

    def output(self, pooled_BD: Tensor, decision: RoutingDecision) -> ModelOutput:
        """Predict, and add the routing ratio and, in training, the loss that holds it to the budget."""
        output = super().output(pooled_BD, decision)
        output.routing_ratio = output.units_executed["big"] / self.grid.num_patches
        if not self.training and self.threshold is not None and not torch.compiler.is_compiling():
            output.metrics["threshold"] = self.threshold.detach()
        if self.training and self.budget.weight > 0:
            rate = decision.rate()
            output.losses["budget"] = self.budget(self._cost_share(rate) if self.budget_in_flops else rate)
        return output

    def _cost_share(self, rate: Tensor) -> Tensor:
        return (self.cheapest_flops + rate * (self.dense_flops - self.cheapest_flops)) / self.dense_flops

    @property
    def default_knob_value(self) -> float:
        """Threshold or share as trained."""
        return self.router.default_knob_value

    def knob_values(self, images: Sequence[Tensor], **facts: Sequence[Tensor]) -> list[KnobValue]:
        """Return knob values spread over routing ratios, chosen on what the router sees of these batches."""
        evidence = [
            self.evidence(self.encode(batch, **{name: values[index] for name, values in facts.items()}))
            for index, batch in enumerate(images)
        ]
        return list(self.router.knob_values(torch.cat(evidence)))

    def along_knob(self, images: Tensor, values: Sequence[KnobValue], **facts: Tensor) -> Iterator[ModelOutput]:
        """Yield one output per value; the scores are computed once."""
        encoded = self.encode(images, **facts)
        evidence_BN = self.evidence(encoded)
        decisions = [self.router.at_knob(evidence_BN, float(value)) for value in values]
        count_together([decision for decision in decisions if decision.num_hard is None])
        for decision in decisions:
            yield self.dispatch(encoded, decision)

    def traceable(self) -> nn.Module:
        """Return the model at its knob's value, as a number: a graph cannot read one from a buffer."""
        return _AtKnob(self, self.default_knob_value)

    def check_knob(self, value: KnobValue) -> None:
        """Check that the value is a number that the router's knob can have."""
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"evaluation.knob_value {value!r}: the knob '{self.knob}' of this router is a number")
        self.router.check_knob(float(value))

    def set_knob(self, value: KnobValue) -> None:
        """Make ``value`` the default."""
        self.check_knob(value)
        self.router.set_knob(float(value))


class _AtKnob(nn.Module):
    def __init__(self, model: AttentionRouting, value: float) -> None:
        super().__init__()
        self.model, self.value = model, value

    def forward(self, images: Tensor) -> Tensor:
        """Return predictions of normalised images (B, C, H, W)."""
        model = self.model
        encoded = model.encode(images)
        return model.dispatch(encoded, model.router.at_knob(model.evidence(encoded), self.value)).prediction


def _check_facts(kind: type[Router], mode: str, info: DataInfo) -> None:
    for fact in kind.needs:
        if fact not in info.facts:
            raise InputError(
                f"model.router.mode '{mode}' needs the {fact} of every image, which this data set does not know "
                f"(it knows: {choices(info.facts) or 'nothing but the pixels'}; the data set 'digits' knows the box)"
            )
