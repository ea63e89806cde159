"""Training throughput of every family: pixels on the device against pixels sent batch by batch; fp32 against bf16.

A threshold's routed rows are counted on the host (``gathered``), or the big branch runs on all of them (``masked``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from routing.bench.gpu.sizes import Sizes, family, random_split
from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, band, ratio, runs_bf16
from routing.data import Split
from routing.evaluation.interleaved import interleaved
from routing.evaluation.tasks import task_of
from routing.models.patch import routed
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import make_schedule

BASE = "on the device"
COLUMNS = {
    "device": "device",
    "family": "family",
    "way": "way",
    "images_per_second": "images/s",
    "ratio": "faster, times",
    **BAND_COLUMNS,
    "gpu_memory_mb": "peak memory, MB",
}


def bench(sizes: Sizes, device: str) -> list[BenchTable]:
    """Return one table: a row per family and way."""
    rows = [row for name in sizes.families for row in compare(name, sizes, device)]
    return [BenchTable("training throughput", COLUMNS, rows)]


def compare(name: str, sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Yield a row for every way of training a family; pixels on the device, in fp32, are the base."""
    config, _, info = family(name, device)
    host = random_split(info, sizes.batch * sizes.steps)
    there = Split(host.images[:].to(device), host.targets.to(device))
    ways: dict[str, Callable[[], object]] = {BASE: epoch(name, there, sizes, device)}
    sent = replace(there, images=host.images)
    if device == "cuda":
        ways["sent batch by batch"] = epoch(name, sent, sizes, device)
        if config.model.name == "attention_routing" and "top_k" not in name:
            ways |= {way: epoch(name, there, sizes, device, masked_below=bound) for way, bound in _FORMS.items()}
    if runs_bf16(device):
        ways["bf16"] = epoch(name, there, sizes, device, is_bf16=True)
    peaks = {way: _peak(run, device) for way, run in ways.items()}
    seconds = interleaved(ways, max(1, sizes.rounds // 3), warmup=0)
    for way in ways:
        per_second = sizes.batch * sizes.steps / band(seconds[way]).median
        row = {"device": device, "family": name, "way": way, "images_per_second": per_second}
        yield {**row, **ratio(seconds[BASE], seconds[way]).row(), "gpu_memory_mb": peaks[way]}


_FORMS = {"gathered": 0, "masked": 2**62}


def epoch(
    name: str, split: Split, sizes: Sizes, device: str, *, is_bf16: bool = False, masked_below: int | None = None
) -> Callable[[], object]:
    """Return an epoch of training of a model of its own."""
    config, model, info = family(name, device, **{"training.batch_size": sizes.batch})
    task = task_of(info.task)
    optimizer = make_optimizer(model, config.training)
    turn = make_schedule(config.training, model, task).turn([])
    assert turn is not None
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=is_bf16)
    usual = routed.MASKED_BELOW

    def run() -> None:
        routed.MASKED_BELOW = usual if masked_below is None else masked_below
        try:
            train_epoch(model, split, info, task, optimizer, config.training, turn=turn, seed=0, autocast=autocast)
        finally:
            routed.MASKED_BELOW = usual

    return run


def _peak(run: Callable[[], object], device: str) -> float | None:
    """Return the most memory that the device's tensors took while it ran, in 2**20 bytes; it also warms up."""
    if device != "cuda":
        run()
        return None
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20
