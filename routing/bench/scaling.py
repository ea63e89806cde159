"""``routing bench scaling``: growth of cost with size, as exponents of log-log fits; and the cost of counting compute.

An exponent of 1 is growth in proportion. Beside that of the seconds stands the exponent of the multiply-adds that the
compute ledger expects: seconds that grow less show a fixed part, seconds that grow more a loss at larger sizes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from routing.bench.shapes import CIFAR, SHAPES, config_of, patch_model, random_images
from routing.bench.synthetic import write_results
from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, exponent, ratio
from routing.config.run import RunConfig
from routing.data import Split
from routing.evaluation.compute import measure
from routing.evaluation.evaluate import Evaluator
from routing.evaluation.interleaved import interleaved
from routing.evaluation.operating_points import knob_values, operating_points
from routing.evaluation.tasks import task_of, total_loss
from routing.models.patch.model import PatchModel
from routing.training.optimizer import make_optimizer
from routing.training.seeding import prepare_process

BASE: dict[str, Any] = {  # 64 images of 16 patches, a quarter of them on the big branch
    **CIFAR,
    "training.batch_size": 64,
    "model.router.mode": "top_k",
    "model.router.budget.unit": "ratio",
    "model.router.budget.target": 0.25,
}
CELL = 8  # pixels per side of a patch without margin, whatever their number
AXES: dict[str, tuple[str, tuple[float, ...]]] = {
    "images per batch": ("training.batch_size", (16, 32, 64, 128, 256)),
    "patches per image": ("dataset.patch_grid_size", (2, 4, 8, 16)),
    "routing ratio": ("model.router.budget.target", (0.125, 0.25, 0.5, 1.0)),
}
TRIALS = (100, 1_000, 10_000, 100_000)
LONGEST = 60.0  # seconds; a larger results folder is left out where it would take longer

FIT_COLUMNS = {
    "axis": "a training step against",
    "sizes": "sizes",
    "first_ms": "ms at the first",
    "last_ms": "ms at the last",
    "exponent": "exponent",
    "r2": "R2",
    "expected": "of its multiply-adds",
    "n": "rounds",
}
LEDGER_COLUMNS = {
    "shape": "shape",
    "part": "counting multiply-adds",
    "ratio": "share of evaluation",
    **BAND_COLUMNS,
}
ANALYZE_COLUMNS = {"trials": "trials", "seconds": "seconds", "exponent": "exponent from the size before", "n": "runs"}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables of training steps, of the compute ledger, and of ``routing analyze``."""
    steps = [training_step(axis, rounds=3 if quick else 15) for axis in AXES]
    ledger = [row for shape in SHAPES for row in ledger_share(shape, rounds=3 if quick else 9)]
    trials = TRIALS[:3] if quick else TRIALS
    return [
        BenchTable("seconds of a training step as powers of size", FIT_COLUMNS, steps),
        BenchTable("compute ledger in the evaluation of a trained model, all operating points", LEDGER_COLUMNS, ledger),
        BenchTable("routing analyze against the number of trials", ANALYZE_COLUMNS, analyze(trials, 1 if quick else 3)),
    ]


def training_step(axis: str, rounds: int = 9) -> dict[str, Any]:
    """Return the exponent of the seconds of a training step along one axis, and that of its multiply-adds."""
    prepare_process(0, 1)
    key, values = AXES[axis]
    sizes = [value**2 if key == "dataset.patch_grid_size" else value for value in values]
    steps, expected = {}, []
    for size, value in zip(sizes, values, strict=True):
        keys = {**BASE, key: value}
        keys["dataset.input_size"] = CELL * keys["dataset.patch_grid_size"]
        config = config_of(keys, "attention_routing")
        model = patch_model(config)
        steps[f"{size:g}"] = _step(config, model)
        expected.append(model.expected_flops() * config.training.batch_size)
    seconds = [statistics.median(found) for found in interleaved(steps, rounds).values()]
    slope, r2 = exponent(sizes, seconds)
    return {
        "axis": axis,
        "sizes": " ".join(steps),
        "first_ms": 1000 * seconds[0],
        "last_ms": 1000 * seconds[-1],
        "exponent": slope,
        "r2": r2,
        "expected": exponent(sizes, expected)[0],
        "n": rounds,
    }


def _step(config: RunConfig, model: PatchModel) -> Callable[[], None]:
    """Return one step of training as a run does it, on the same batch each time."""
    model.train()
    optimizer, task = make_optimizer(model, config.training), task_of("classification")
    images = random_images(config.dataset.info(), config.training.batch_size)
    targets = torch.randint(0, 10, (len(images),))

    def step() -> None:
        loss, _ = total_loss(model(images), task, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.grad_clip)
        optimizer.step()

    return step


def ledger_share(shape: str, rounds: int = 5, images: int = 3_000) -> list[dict[str, Any]]:
    """Return which share of evaluating a model along its knob the compute ledger takes, in its two parts."""
    prepare_process(0, 1)
    config = config_of(SHAPES[shape], "attention_routing")
    info, model = config.dataset.info(), patch_model(config)
    pixels = torch.randint(0, 256, (images, info.channels, info.input_size, info.input_size), dtype=torch.uint8)
    split = Split(pixels, torch.randint(0, info.num_outputs, (images,)))
    autocast = torch.autocast("cpu", enabled=False)
    evaluator = Evaluator(split, info, task_of(info.task), config.evaluation.batch_size, autocast)
    whole, every_point, once = [], [], []
    for _ in range(rounds):
        with _timed_closed_form(model) as spent:
            started = time.perf_counter()
            operating_points(model, evaluator, evaluator.run(model), knob_values(model, evaluator))
            evaluated = time.perf_counter() - started
        every_point.append(sum(spent))
        batch = next(evaluator.batches())
        started = time.perf_counter()
        measure(model, batch.images)
        once.append(time.perf_counter() - started)
        whole.append(evaluated + once[-1])
    parts = {"closed form, every operating point": every_point, "check against what was executed, once per trial": once}
    return [{"shape": shape, "part": part, **ratio(spent, whole).row()} for part, spent in parts.items()]


@contextmanager
def _timed_closed_form(model: PatchModel) -> Iterator[list[float]]:
    """Yield a list that gets the seconds of every call of ``model.closed_form``."""
    spent: list[float] = []
    count = model.closed_form

    def timed(*arguments: Any) -> torch.Tensor:
        started = time.perf_counter()
        try:
            return count(*arguments)
        finally:
            spent.append(time.perf_counter() - started)

    model.closed_form = timed
    try:
        yield spent
    finally:
        del model.closed_form


def analyze(sizes: Sequence[int], rounds: int = 1) -> list[dict[str, Any]]:
    """Return the seconds of the command for results of each size, its start included."""
    rows: list[dict[str, Any]] = []
    for size in sizes:
        if len(rows) > 1 and _expected_seconds(rows, size) > LONGEST:
            break
        with tempfile.TemporaryDirectory() as folder:
            write_results(Path(folder), size)
            seconds = [_analyze(folder) for _ in range(rounds)]
        row: dict[str, Any] = {"trials": size, "seconds": statistics.median(seconds), "exponent": None, "n": rounds}
        if rows:
            row["exponent"] = exponent([rows[-1]["trials"], size], [rows[-1]["seconds"], row["seconds"]])[0]
        rows.append(row)
    return rows


def _expected_seconds(rows: Sequence[dict[str, Any]], size: int) -> float:
    """Return the seconds of the smallest results, and what came on top of them at the last size in proportion."""
    start, last = rows[0]["seconds"], rows[-1]
    return start + (last["seconds"] - start) * size / last["trials"]


def _analyze(folder: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "routing", "analyze", folder], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
