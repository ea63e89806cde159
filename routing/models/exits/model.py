"""Early exits (BranchyNet, arXiv 1709.01686): a head after some stages; an image leaves at the first confident one.

    image -> stage 1 -> head 1: confident? -> ... -> stage S -> last head

Inference is truly conditional: after each head the rows of the batch that go on are gathered; the others are done.
Training runs all stages on all images, with a loss per head. Each early head has a temperature of its own, fitted to
the training images beside the weights (arXiv 1706.04599): its loss reaches nothing but the temperature.

Shapes: B batch, K images that go on, E early heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.data import DataInfo
from routing.errors import InputError
from routing.models.base import CountedPart, KnobValue, ModelOutput, VisionModel
from routing.models.chain import ChainHead
from routing.models.exits.section import EarlyExitSection
from routing.models.layers import then_the_rest
from routing.models.units import rows_of

CURVE_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Quantiles of confidence, over images and heads, along the curve that is evaluated."""


class EarlyExit(VisionModel):
    """A network of this project or by name, heads after its stages, and a confidence from which images leave."""

    knob = "confidence"

    def __init__(self, section: EarlyExitSection, info: DataInfo) -> None:
        super().__init__()
        self.network = section.network.build(info)
        self.links = self.network.chain()
        self.num_outputs = info.num_outputs
        self.exits = _checked(section.exits, len(self.links.stages))
        settings = section.head
        self.heads = nn.ModuleList(
            ChainHead(self.links.stages[stage - 1].shape_out, info.num_outputs, settings.pool, settings.hidden)
            for stage in self.exits
        )
        self.log_scales = nn.Parameter(torch.zeros(len(self.exits)))
        self.head_weight, self.distillation = section.head_weight, section.distillation
        self.confidence = section.confidence
        self.dense_flops = float(self.links.multiply_adds())

    def library_config(self) -> dict[str, Any] | None:
        """The network's."""
        return self.network.library_config()

    @property
    def exiting(self) -> EarlyExit:
        """The model itself."""
        return self

    def depth_order(self) -> list[list[nn.Parameter]]:
        """The network's layers; the early heads learn at the rate of the last one."""
        *layers, _ = self.network.depth_order() or [[]]
        return then_the_rest(layers, self) if layers else []

    def traceable(self) -> nn.Module:
        """Every head for every image, and of them the first confident one: the predictions, without the saving."""
        return EveryHead(self)

    def initialise(self, section: EarlyExitSection) -> None:  # type: ignore[override]
        """Load the network's weights."""
        self.network.initialise(section.network)

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict; every head in training, the first confident one otherwise."""
        if self.training and torch.is_grad_enabled():
            return self._train_form(self.every_head(images))
        return self._leaving(images)

    def every_head(self, images: Tensor) -> list[Tensor]:
        """Return the logits (B, classes) of every head, the last one last."""
        features, logits = self.network.entry(images), []
        for number, stage in enumerate(self.links.stages, start=1):
            features = stage.module(features)
            if number in self.exits:
                logits.append(self.heads[self.exits.index(number)](features).float())
        return [*logits, self.links.head.module(features).float()]

    def _train_form(self, logits: Sequence[Tensor]) -> ModelOutput:
        *early, last = logits
        output = ModelOutput(last)
        for index, head in enumerate(early):
            output.auxiliary[f"exit{self.exits[index]}"] = (self.head_weight, head)
            output.auxiliary[f"temperature{self.exits[index]}"] = (1.0, self._scaled(head.detach(), index))
        if self.distillation:
            wanted = last.detach().softmax(dim=1)
            apart = [F.kl_div(head.log_softmax(dim=1), wanted, reduction="batchmean") for head in early]
            output.losses["distillation"] = self.distillation * torch.stack(apart).sum()
        return output

    def dense_path(self, images: Tensor, **facts: Tensor) -> ModelOutput:
        """Predict by the last head."""
        return ModelOutput(self.every_head(images)[-1])

    @property
    def skips_in_training(self) -> bool:
        """The early heads do."""
        return True

    def distilled(self, output: ModelOutput) -> list[tuple[float, Tensor]]:
        """The last head and the early ones, but not their temperatures."""
        return [(1.0, output.prediction), *(output.auxiliary[f"exit{stage}"] for stage in self.exits)]

    def loss_terms(self) -> tuple[str, ...]:
        """The last head's, and of each early one its own and that of its temperature."""
        early = [name for stage in self.exits for name in (f"exit{stage}", f"temperature{stage}")]
        return ("task", *early, *(("distillation",) if self.distillation else ()))

    def _scaled(self, logits: Tensor, index: int) -> Tensor:
        return logits * self.log_scales[index].exp()

    def confidences(self, logits: Sequence[Tensor]) -> Tensor:
        """Return the highest probability (B, E) that each early head gives, at its temperature."""
        found = [self._scaled(head, index).softmax(dim=1).amax(dim=1) for index, head in enumerate(logits[:-1])]
        return torch.stack(found, dim=1)

    def _leaving(self, images: Tensor) -> ModelOutput:
        """Run stage by stage on the rows that are left."""
        rows = torch.arange(len(images), device=images.device)
        left_B = torch.full((len(images),), len(self.exits), device=images.device)
        prediction = torch.zeros(len(images), self.num_outputs, device=images.device)
        features = self.network.entry(images)
        for number, stage in enumerate(self.links.stages, start=1):
            features = stage.module(features)
            if number not in self.exits:
                continue
            index = self.exits.index(number)
            logits_KC = self.heads[index](features).float()
            leaves_K = self._scaled(logits_KC, index).softmax(dim=1).amax(dim=1) > self.confidence
            prediction[rows] = torch.where(leaves_K.unsqueeze(1), logits_KC, prediction[rows])
            left_B[rows] = torch.where(leaves_K, index, left_B[rows])
            _, stays = rows_of(leaves_K)  # on a GPU the host waits here: what runs next depends on how many stay
            features, rows = features.index_select(0, stays), rows.index_select(0, stays)
            if not len(rows):
                break
        if len(rows):
            prediction[rows] = self.links.head.module(features).float()
        return self._output(prediction, left_B)

    def leaving_at(self, logits: Sequence[Tensor], left_B: Tensor) -> ModelOutput:
        """Return what images that leave at these heads (B,), counted from 0, are given, and what they cost."""
        stacked_BEC = torch.stack(list(logits), dim=1)
        return self._output(stacked_BEC[torch.arange(len(left_B), device=left_B.device), left_B], left_B)

    def first_confident(self, confidences_BE: Tensor, confidence: float) -> Tensor:
        """Return the head (B,), counted from 0, at which each image leaves; E is the last one."""
        certain_BE = confidences_BE > confidence
        first_B = certain_BE.int().argmax(dim=1)
        return torch.where(certain_BE.any(dim=1), first_B, confidences_BE.shape[1])

    def _output(self, prediction: Tensor, left_B: Tensor) -> ModelOutput:
        depth = len(self.links.stages)
        units = self.units_of(left_B)
        passed_B = torch.stack([units[f"stage{stage}"] for stage in range(1, depth + 1)]).sum(0)
        metrics: dict[str, float | Tensor] = {}
        if not self.training:
            metrics = {f"left_at_exit{s}": (left_B == i).double().mean() for i, s in enumerate(self.exits)}
        return ModelOutput(prediction, metrics=metrics, units_executed=units, routing_ratio=passed_B.double() / depth)

    def units_of(self, left_B: Tensor) -> dict[str, Tensor]:
        """Return what runs for images that leave at these heads (B,), counted from 0: every stage and head so far."""
        depth = len(self.links.stages)
        earlier = {stage: sum(exit_ < stage for exit_ in self.exits) for stage in range(1, depth + 1)}
        units = {f"stage{stage}": (left_B >= count).long() for stage, count in earlier.items()}
        units |= {f"exit{stage}": (left_B >= index).long() for index, stage in enumerate(self.exits)}
        return units | {"head": (left_B == len(self.exits)).long()}

    def counted_parts(self) -> dict[str, CountedPart]:
        """Stages, early heads and the last head, each as often as images reach it."""
        parts = {f"stage{i}": stage.counted(None) for i, stage in enumerate(self.links.stages, start=1)}
        for index, stage in enumerate(self.exits):
            head = self.heads[index]
            assert isinstance(head, ChainHead)
            parts[f"exit{stage}"] = head.stage().counted(None)
        return parts | {"head": self.links.head.counted(None)}

    def executed_parts(self, units_executed: Mapping[str, Any]) -> dict[str, CountedPart]:
        """All of them."""
        return self.counted_parts()

    def nominal_units(self) -> dict[str, float]:
        """Return every part once: how many images leave early is unknown before training."""
        return dict.fromkeys(self.counted_parts(), 1.0)

    @property
    def default_knob_value(self) -> float:
        """The confidence as configured."""
        return self.confidence

    def knob_values(self, images: Sequence[Tensor]) -> list[KnobValue]:
        """Return quantiles of the confidences on these batches, and the two ends: all leave first, none leaves."""
        found = torch.cat([self.confidences(self.every_head(batch)) for batch in images]).flatten().double()
        between = torch.quantile(found.cpu(), torch.tensor(CURVE_SHARES, dtype=torch.float64)).tolist()
        return list(dict.fromkeys([0.0, *between, 1.0]))

    def along_knob(self, images: Tensor, values: Sequence[KnobValue]) -> Iterator[ModelOutput]:
        """Yield one output per confidence; all heads run once, and count as far as an image would have come."""
        logits = self.every_head(images)
        confidences_BE = self.confidences(logits)
        for value in values:
            yield self.leaving_at(logits, self.first_confident(confidences_BE, float(value)))

    def check_knob(self, value: KnobValue) -> None:
        """A confidence is a probability."""
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InputError(f"evaluation.knob_value {value!r}: not a confidence (valid: 0 <= confidence <= 1)")

    def set_knob(self, value: KnobValue) -> None:
        """Make ``value`` the default confidence."""
        self.check_knob(value)
        self.confidence = float(value)


class EveryHead(nn.Module):
    """What an exporter traces: a graph cannot end early for some images of a batch."""

    def __init__(self, model: EarlyExit) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) of normalised images."""
        logits = self.model.every_head(images)
        left_B = self.model.first_confident(self.model.confidences(logits), self.model.confidence)
        stacked_BEC = torch.stack(logits, dim=1)
        return stacked_BEC.gather(1, left_B[:, None, None].expand(-1, 1, stacked_BEC.shape[2])).squeeze(1)


def _checked(exits: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the stages with a head behind them, ascending; by default all but the last."""
    chosen = tuple(sorted(set(exits))) or tuple(range(1, depth))
    if not chosen or chosen[-1] >= depth:
        raise InputError(
            f"model.exits {list(exits)}: the network has {depth} stages, and its own head is behind the last "
            f"(valid: 1 to {depth - 1})"
        )
    return chosen
