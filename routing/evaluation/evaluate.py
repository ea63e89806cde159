"""What a model does on a whole split: its metrics, and the multiply-adds it really executed for every image.

Shapes: M images of the split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from routing.data import Batch, DataInfo, Split, batches
from routing.evaluation.executed import counted
from routing.evaluation.metrics import Metric
from routing.evaluation.tasks import Task
from routing.files.record import OperatingPoint
from routing.models.base import KnobValue, ModelOutput, PartName, VisionModel


@dataclass
class Evaluation:
    """Metrics of a split; ``flops`` int64 (M,) and ``routing_ratio`` (M,) or None are per image.

    ``correct`` is the task's metric image by image (M,) where it is a mean of zeros and ones, else None.
    """

    metrics: dict[str, float]
    flops: Tensor
    routing_ratio: Tensor | None
    model_metrics: dict[str, float] = field(default_factory=dict)
    correct: Tensor | None = None

    def compute_summary(self) -> dict[str, float]:
        """Return mean, 5th and 95th percentile of multiply-adds per image."""
        flops = self.flops.double()
        low, high = torch.quantile(flops, torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
        return {"flops": float(flops.mean()), "flops_p5": low, "flops_p95": high}

    def mean_ratio(self) -> float | None:
        """Return the mean routing ratio, or None where nothing is routed."""
        return None if self.routing_ratio is None else float(self.routing_ratio.double().mean())

    def point(self, knob: str, value: KnobValue | None, is_default: bool, params: int, split: str) -> OperatingPoint:
        """Return the evaluation as one operating point."""
        metrics = {f"{split}_{name}": metric for name, metric in self.metrics.items()}
        return OperatingPoint(
            knob=knob,
            knob_value=value,
            is_default=is_default,
            routing_ratio=self.mean_ratio(),
            params=params,
            metrics=metrics,
            **self.compute_summary(),
        )


class _Collector:
    """Gathers the outputs of one operating point, batch by batch."""

    def __init__(self, model: VisionModel) -> None:
        self.model = model
        self.predictions: list[Tensor] = []
        self.units: list[dict[PartName, Tensor]] = []
        self.ratios: list[Tensor] = []
        self.model_metrics: dict[str, float | Tensor] = {}
        self.images = 0

    def add(self, output: ModelOutput, batch_size: int) -> None:
        self.predictions.append(output.prediction.float())
        self.units.append(output.units_executed)
        if output.routing_ratio is not None:
            self.ratios.append(output.routing_ratio)
        self.images += batch_size
        for name, given in output.metrics.items():
            value = given.double() if isinstance(given, Tensor) else given
            mean = self.model_metrics.get(name, value)
            self.model_metrics[name] = mean + (value - mean) * batch_size / self.images

    def evaluation(self, task: Task, further: Mapping[str, Metric], targets: Tensor) -> Evaluation:
        ratios = torch.cat(self.ratios).cpu() if self.ratios else None
        predictions, targets = torch.cat(self.predictions).cpu(), targets.cpu()  # metrics are in double precision
        metrics = task.metrics(predictions, targets)
        metrics |= {name: metric(predictions, targets) for name, metric in further.items()}
        flops = self.model.closed_form(self._units(), self.images)
        correct = task.per_image(predictions, targets)
        means = {name: float(value) for name, value in self.model_metrics.items()}
        return Evaluation(metrics, flops, ratios, means, correct)

    def _units(self) -> dict[PartName, Tensor]:
        """Return the units of all images, name -> (M,); a part that a batch does not name did not run in it."""
        names = dict.fromkeys(name for units in self.units for name in units)
        found: dict[PartName, Tensor] = {}
        for name in names:
            like = next(units[name] for units in self.units if name in units)
            none = (like.new_zeros(len(prediction)) for prediction in self.predictions)
            found[name] = torch.cat([units.get(name, zeros) for units, zeros in zip(self.units, none, strict=True)])
        return found


def drawn(split: Split, count: int, seed: int) -> Split:
    """Return ``count`` images of a split, in its order, the same ones for the same seed; all where it has no more."""
    if count >= len(split):
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    chosen = order[:count].sort().values
    extra = {name: value[chosen] for name, value in split.extra.items()}
    return Split(split.images.index_select(0, chosen), split.targets[chosen], extra, split.on_device)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a model on one split, always in the same batches; ``metrics`` are further ones than the task's."""

    split: Split
    info: DataInfo
    task: Task
    batch_size: int
    autocast: torch.autocast
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def batches(self, facts: Sequence[str] = ()) -> Iterator[Batch]:
        """Yield the split's batches in its own order, with these facts beside the pixels."""
        return batches(self.split, self.info, self.batch_size, facts=facts)

    def run(self, model: VisionModel) -> Evaluation:
        """Evaluate the model as it is, without gradients."""
        return self.several(model, 1, lambda batch: [model(batch.images, **batch.facts)])[0]

    def along_knob(self, model: VisionModel, values: Sequence[KnobValue]) -> list[Evaluation]:
        """Evaluate every knob value in one pass over the split."""
        return self.several(model, len(values), lambda batch: model.along_knob(batch.images, values, **batch.facts))

    @torch.no_grad()
    def several(
        self,
        model: VisionModel,
        count: int,
        outputs_of: Callable[[Batch], Iterable[ModelOutput]],
        facts: Sequence[str] | None = None,
    ) -> list[Evaluation]:
        """Evaluate ``count`` ways of running the model in one pass, without gradients.

        Args:
            outputs_of: one output per way for a batch.
            facts: what a batch holds beside the pixels; what the model needs where not given.
        """
        was_training = model.training
        model.eval()
        collectors = [_Collector(model) for _ in range(count)]
        with self.autocast:
            for batch in self.batches(model.needs if facts is None else facts):
                outputs = outputs_of(batch) if model.has_closed_form else counted(model, batch, outputs_of, count)
                for collector, output in zip(collectors, outputs, strict=True):
                    collector.add(output, len(batch.targets))
        model.train(was_training)
        return [collector.evaluation(self.task, self.metrics, self.split.targets) for collector in collectors]
