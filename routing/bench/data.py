"""``routing bench data``: the cost of data: its share of a training step, and memory per trial on the same data.

Images are random, of CIFAR's shape and number, in the cache that every data set is kept in; where they come from does
not matter to either.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from routing.bench.shapes import CIFAR, config_of, patch_model
from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, ratio
from routing.config.run import RunConfig
from routing.data import Split, batches
from routing.data.augment import image_steps
from routing.data.cache import cached_splits
from routing.evaluation.interleaved import interleaved
from routing.evaluation.tasks import task_of
from routing.models.patch.model import PatchModel
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import make_schedule
from routing.training.seeding import epoch_generator, epoch_order, prepare_process

IMAGES = 45_000  # CIFAR-10's training split less the validation images: 138 MB
SMAPS = Path("/proc/self/smaps_rollup")

STEP_COLUMNS = {
    "model": "model",
    "part": "part of a training step",
    "ratio": "share",
    **BAND_COLUMNS,
}
MEMORY_COLUMNS = {
    "way": "each of two trials on the same data",
    "data_megabytes": "data (MB)",
    "private_megabytes": "own memory of each for it (MB)",
    "n": "rounds",
}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables of the data's share of a training step and of memory per trial."""
    with temporary_cache():
        count = IMAGES // 9 if quick else IMAGES
        models = ("attention_routing",) if quick else ("attention_routing", "full_compute")
        steps = [row for model in models for row in step_shares(model, count)]
        memory = memory_per_trial(IMAGES, rounds=1 if quick else 3)
    return [
        BenchTable("data in a training step on CIFAR's shape, batch 64", STEP_COLUMNS, steps),
        BenchTable("memory of one more trial on the same data", MEMORY_COLUMNS, memory),
    ]


@contextmanager
def temporary_cache() -> Iterator[None]:
    """Keep cached arrays in a folder that is deleted afterwards."""
    before = os.environ.get("ROUTING_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ROUTING_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("ROUTING_CACHE")
            if before is not None:
                os.environ["ROUTING_CACHE"] = before


def training_split(count: int) -> Split:
    """Return ``count`` random images of CIFAR's shape, mapped from the cache."""

    def build() -> dict[str, dict[str, Any]]:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        return {"train": {"images": images, "targets": rng.integers(0, 10, count)}}

    return cached_splits("bench", {"count": count}, build)["train"]


def step_shares(model_name: str, count: int, rounds: int = 3) -> list[dict[str, Any]]:
    """Return the share of a training epoch that each part of the data's way takes, and all of them together."""
    prepare_process(0, 1)
    config = config_of(CIFAR, model_name)
    info, split = config.dataset.info(), training_split(count)
    model = patch_model(config, info)
    seconds = interleaved({"whole step": _epoch(config, model, split), **_parts(config, model, split)}, rounds, 1)
    rows = []
    for part in list(seconds)[1:]:
        rows.append({"model": model_name, "part": part, **ratio(seconds[part], seconds["whole step"]).row()})
    return rows


def _epoch(config: RunConfig, model: PatchModel, split: Split) -> Callable[[], object]:
    """Return one epoch of training, as a run does it."""
    task = task_of("classification")
    turn = make_schedule(config.training, model, task).turn([])
    assert turn is not None
    optimizer = make_optimizer(model, config.training)
    autocast = torch.autocast("cpu", enabled=False)
    return lambda: train_epoch(
        model,
        split,
        config.dataset.info(),
        task,
        optimizer,
        config.training,
        turn=turn,
        seed=0,
        autocast=autocast,
    )


def _parts(config: RunConfig, model: PatchModel, split: Split) -> dict[str, Callable[[], object]]:
    """Return an epoch of every part of the data's way alone: each over the same images in the same order."""
    info, size = config.dataset.info(), config.training.batch_size
    order = epoch_order(0, 1, len(split))
    augment = image_steps(config.training.augment, info, epoch_generator(0, 1, "augment"))
    assert augment is not None
    pixels, images = split.images[:size], next(batches(split, info, size)).images
    steps = range(-(-len(split) // size))

    return {
        "selection and normalisation": lambda: _exhaust(batches(split, info, size, order)),
        "augmentation": lambda: _exhaust(augment(pixels) for _ in steps),
        "input pipeline: these together": lambda: _exhaust(batches(split, info, size, order, augment=augment)),
        "crop of every patch, by the model": lambda: _exhaust(model.grid.all(images) for _ in steps),
        "input pipeline and crop": lambda: _exhaust(
            model.grid.all(batch.images) for batch in batches(split, info, size, order, augment=augment)
        ),
    }


def _exhaust(work: Iterable[object]) -> None:
    for _ in work:
        pass


_TRIAL = """
import sys
from routing.bench.data import trial_memory
print(trial_memory(int(sys.argv[1]), sys.argv[2] == "mapped"), flush=True)
sys.stdin.read()
"""


def memory_per_trial(count: int, rounds: int = 3) -> list[dict[str, Any]]:
    """Return the memory that each of two processes alive at once needs for the same data; nothing without /proc."""
    if not SMAPS.exists():
        return []
    split = training_split(count)
    megabytes = split.images.nbytes / 1e6
    rows = []
    for way in ("mapped", "own copy"):
        found = [value for _ in range(rounds) for value in _two_trials(count, way)]
        rows.append({"way": way, "data_megabytes": megabytes, "private_megabytes": max(found), "n": rounds})
    return rows


def _two_trials(count: int, way: str) -> list[float]:
    """Return what two processes report; the first lives until the second has read everything too."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for _ in range(2):
            command = [sys.executable, "-c", _TRIAL, str(count), way]
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return [float(process.stdout.readline()) for process in processes if process.stdout is not None]
    finally:
        for process in processes:
            process.communicate()


def trial_memory(count: int, mapped: bool) -> float:
    """Return by how many megabytes this process's private memory grows as it reads the data batch by batch."""
    prepare_process(0, 1)
    info = config_of(CIFAR, "full_compute").dataset.info()
    scratch = Split(torch.zeros(128, 3, 32, 32, dtype=torch.uint8), torch.zeros(128, dtype=torch.int64))
    _exhaust(batches(scratch, info, 64))  # warm-up: the cost of the first batch is not measured
    before = private_megabytes()
    split = training_split(count)
    if not mapped:
        split = Split(split.images[:].clone(), split.targets)
    _exhaust(batches(split, info, 64, epoch_order(0, 1, len(split))))
    return private_megabytes() - before


def private_megabytes() -> float:
    """Return the memory that is this process's alone, in megabytes: all but the pages of files, which all share."""
    lines = (line.split() for line in SMAPS.read_text(encoding="utf-8").splitlines()[1:])
    return sum(int(words[1]) for words in lines if words[0] == "Anonymous:") * 1024 / 1e6
