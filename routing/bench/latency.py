"""``routing bench latency``: do measured costs of a model order models alike when they are measured again?

Twenty conv nets, each about 8 % more expensive than the one before, are measured twice, in two random orders, as a run
with ``evaluation.costs`` does, with other processes computing in bursts meanwhile: one on each processor.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from routing.bench.tables import BenchTable
from routing.config.run import RunConfig
from routing.data import DataInfo, Split
from routing.evaluation.costs import measured_costs
from routing.evaluation.evaluate import Evaluator
from routing.evaluation.tasks import task_of
from routing.models import build_model
from routing.models.base import VisionModel
from routing.training.seeding import prepare_process

MODELS = 20
_SHAPE = DataInfo("classification", 3, 32, 10, (0.5,) * 3, (0.25,) * 3)
_BATCH = 8
_COSTS = ("latency_ms", "latency_ratio")
_BURSTS = """
import random, time
import torch
torch.set_num_threads(1)
one = torch.randn(600, 600)
while True:
    until = time.perf_counter() + random.uniform(0.1, 3)
    while time.perf_counter() < until:
        one @ one
    time.sleep(random.uniform(0.1, 3))
"""


def bench(quick: bool = False) -> list[BenchTable]:
    """Return how well two measurements agree, on the machine as it is and with bursts; ``quick``: eight models."""
    prepare_process(0, 1)
    count = 8 if quick else MODELS
    models = [_model(index) for index in range(count)]
    rows = [row("as it is", models)]
    with bursts():
        rows.append(row("bursts", models))
    columns = {"machine": "machine", "models": "models"}
    for name in _COSTS:
        columns |= {name: f"{name}, rank correlation", f"{name}_apart": f"{name}, median difference (%)"}
    return [BenchTable("latency measured twice", columns, rows)]


def row(machine: str, models: list[VisionModel]) -> dict[str, Any]:
    """Return the rank correlation of two measurements of every cost, and by how much they differ in the median."""
    first, second = _measure(models, 0), _measure(models, 1)
    found: dict[str, Any] = {"machine": machine, "models": len(models)}
    for name in _COSTS:
        one, other = (np.array([costs[name] for costs in times]) for times in (first, second))
        found[name] = float(spearmanr(one, other).statistic)
        found[f"{name}_apart"] = 100 * median(np.abs(other / one - 1))
    return found


@contextmanager
def bursts() -> Iterator[None]:
    """Let one process per processor compute in bursts of 0.1 to 3 s, with pauses as long."""
    processes = [subprocess.Popen([sys.executable, "-c", _BURSTS]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _model(index: int) -> VisionModel:
    widths = [round(width * 1.04**index) for width in (24, 48, 96)]  # multiply-adds grow with the square
    config = RunConfig.from_dict({"model.name": "conv_net", "model.widths": widths})
    return build_model(config.model, _SHAPE).eval()


def _measure(models: list[VisionModel], seed: int) -> list[dict[str, float]]:
    images = torch.randint(256, (4 * _BATCH, _SHAPE.channels, _SHAPE.input_size, _SHAPE.input_size), dtype=torch.uint8)
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    evaluator = Evaluator(split, _SHAPE, task_of("classification"), _BATCH, torch.autocast("cpu", enabled=False))
    order = np.random.default_rng(seed).permutation(len(models))
    found = {int(index): measured_costs(_COSTS, models[index], evaluator, [], _BATCH)[0] for index in order}
    return [found[index] for index in range(len(models))]
