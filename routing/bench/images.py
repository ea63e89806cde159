"""``routing bench images``: the cost of photographs: decoding, finding them in the cache, reading in an epoch.

The photographs are drawn: smooth noise of 500 x 400 pixels as JPEG, some 60 kB each. Processor seconds are counted
where one process works alone, so that what else the machine does matters little.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from routing.bench.data import temporary_cache
from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, band, exponent, ratio
from routing.config.run import RunConfig
from routing.data import ImageData, batches
from routing.data.files import list_images
from routing.data.view import View
from routing.evaluation.interleaved import interleaved
from routing.evaluation.tasks import task_of
from routing.models import build_model
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import make_schedule
from routing.training.seeding import epoch_order, prepare_process

SIZES = (32, 112, 224)
COUNTS = (1_000, 10_000, 100_000)
_CLASSES = 10
_OLD = 1_600_000_000  # a time at which folders have settled

BUILD_COLUMNS = {"size": "input size", "rate": "images per processor second", **BAND_COLUMNS}
KNOWN_COLUMNS = {"files": "files", "seconds": "processor seconds", **BAND_COLUMNS, "exponent": "exponent"}
EPOCH_COLUMNS = {
    "size": "input size",
    "storage": "storage",
    "part": "part of an epoch",
    "ratio": "share",
    **BAND_COLUMNS,
}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables of building, knowing and reading a folder of photographs."""
    rounds = 3 if quick else 5
    with temporary_cache(), TemporaryDirectory() as folder:
        root = Path(folder)
        draw_photographs(root / "photographs", 320)
        built = [build_row(root / "photographs", size, rounds) for size in SIZES]
        known = known_rows(root / "many", COUNTS[:2] if quick else COUNTS, rounds)
        epochs = [row for size in SIZES[: 2 if quick else 3] for row in epoch_rows(root / "photographs", size, rounds)]
    return [
        BenchTable("photographs of 500 x 400 pixels decoded, one process", BUILD_COLUMNS, built),
        BenchTable("knowing which files there are, once per trial", KNOWN_COLUMNS, known),
        BenchTable("data in an epoch of training of conv_net, batch 32", EPOCH_COLUMNS, epochs),
    ]


def draw_photographs(root: Path, count: int) -> None:
    """Draw ``count`` JPEGs in class folders."""
    rng = np.random.default_rng(0)
    for index in range(count):
        path = root / str(index % _CLASSES) / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        small.resize((500, 400), Image.Resampling.BICUBIC).save(path, quality=85)


def build_row(root: Path, size: int, rounds: int) -> dict[str, Any]:
    """Return how many images one processor decodes per second."""
    view, paths = View(size, size, bit_depth=8), [str(path) for path in sorted(root.glob("*/*"))[:100]]

    def decode() -> None:
        for path in paths:
            view.read(path)

    return {"size": size, **band([len(paths) / _processor_seconds(decode) for _ in range(rounds)]).row("rate")}


def known_rows(root: Path, counts: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Return the seconds a trial takes to know its files, by their number."""
    rows = []
    for count in counts:
        folder = root / str(count)
        for index in range(count):  # empty files: none is opened
            path = folder / str(index % _CLASSES) / f"{index:06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for path in (folder, *folder.iterdir()):
            os.utime(path, (_OLD, _OLD))
        list_images(folder).files()
        found = [_processor_seconds(lambda folder=folder: list_images(folder).files().digest()) for _ in range(rounds)]  # type: ignore[misc]
        rows.append({"files": count, **band(found).row("seconds")})
    power, _ = exponent(list(counts), [row["seconds"] for row in rows])
    rows[-1]["exponent"] = power
    return rows


def epoch_rows(root: Path, size: int, rounds: int) -> list[dict[str, Any]]:
    """Return the share of the data in an epoch, and how long one with decoding workers takes against the cache."""
    prepare_process(0, 1)
    cached, streamed = (_config(root, size, storage) for storage in ("cache", "files"))
    held, read = cached.dataset.load(), streamed.dataset.load()
    order = epoch_order(0, 1, len(held["train"]))

    def exhaust(data: ImageData) -> None:
        for _ in batches(data["train"], data.info, 32, order):
            pass

    seconds = interleaved(
        {
            "epoch": _epoch(cached, held),
            "data": lambda: exhaust(held),
            "streamed epoch": _epoch(streamed, read),
        },
        rounds,
        1,
    )
    share, utilisation = ratio(seconds["data"], seconds["epoch"]), ratio(seconds["epoch"], seconds["streamed epoch"])
    return [
        {"size": size, "storage": "cache", "part": "selection and normalisation", **share.row()},
        {"size": size, "storage": "files", "part": "epoch from the cache / epoch from files", **utilisation.row()},
    ]


def _config(root: Path, size: int, storage: str) -> RunConfig:
    keys = {"name": "image_folder", "root": str(root), "input_size": size, "storage": storage, "workers": 1}
    return RunConfig.from_dict({"dataset": keys, "model.name": "conv_net", "training.batch_size": 32})


def _epoch(config: RunConfig, data: ImageData) -> Callable[[], object]:
    """Return one epoch of training, as a run does it."""
    model = build_model(config.model, data.info)
    task = task_of("classification")
    turn = make_schedule(config.training, model, task).turn([])
    assert turn is not None
    optimizer, autocast = make_optimizer(model, config.training), torch.autocast("cpu", enabled=False)
    return lambda: train_epoch(
        model, data["train"], data.info, task, optimizer, config.training, turn=turn, seed=0, autocast=autocast
    )


def _processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
