"""Measured inference time on this machine, now. Compare only times that were measured side by side."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace

import torch

from routing.data import Batch
from routing.evaluation.evaluate import Evaluator
from routing.models.base import VisionModel

MIN_REPEATS, MAX_REPEATS = 3, 20
BUDGET_SECONDS = 0.1
BATCH_SIZE = 64


@dataclass(frozen=True)
class Latency:
    """Median over ``repeats`` forward passes of ``batch_size`` images, in milliseconds per image."""

    ms_per_image: float
    repeats: int
    batch_size: int

    def row(self) -> dict[str, float]:
        """Return it as metrics of a trial record."""
        return {
            "ms_per_image": self.ms_per_image,
            "latency_repeats": self.repeats,
            "latency_batch_size": self.batch_size,
        }


@torch.no_grad()
def measure_latency(model: VisionModel, evaluator: Evaluator) -> Latency:
    """Time inference on the first 64 images of a split: once to warm up, then at least three times, for about 0.1 s."""
    was_training = model.training
    model.eval()
    batch = next(replace(evaluator, batch_size=BATCH_SIZE).batches(model.needs))
    seconds: list[float] = []
    with evaluator.autocast:
        _forward(model, batch)
        while len(seconds) < MIN_REPEATS or (len(seconds) < MAX_REPEATS and sum(seconds) < BUDGET_SECONDS):
            started = time.perf_counter()
            _forward(model, batch)
            seconds.append(time.perf_counter() - started)
    model.train(was_training)
    count = len(batch.targets)
    return Latency(1000 * statistics.median(seconds) / count, len(seconds), count)


def _forward(model: VisionModel, batch: Batch) -> None:
    model(batch.images, **batch.facts)
    if batch.images.device.type == "cuda":
        torch.cuda.synchronize(batch.images.device)
