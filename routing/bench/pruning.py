"""How much of a pruned transformer's theoretical speed-up is real: timed side by side with the unpruned model.

Both run the same network in PyTorch's fused attention. Theoretical speed-up = multiply-adds unpruned / pruned, the
choice of tokens included; realised = median over rounds of the ratio of times; what counts is realised / theoretical.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, devices, ratio, runs_bf16
from routing.config.registry import SELECTIONS
from routing.data import DataInfo
from routing.evaluation.interleaved import interleaved
from routing.models.vit.model import Vit
from routing.models.vit.schedule import Schedule
from routing.models.vit.section import VitSection
from routing.models.vit.token_pruning import Pruning, pruned_by
from routing.models.vit.token_selection import Selection
from routing.training.seeding import prepare_process

SELECTION = Selection(k_anchors=10, top_m=50, alpha=0.5)
START_LAYER = 1
SCHEDULES = {
    "tome": Schedule(fewer=16),
    "evit": Schedule(((3, 0.5), (6, 0.5), (9, 0.5))),
    "amod": Schedule(tuple((block, 0.5) for block in range(1, 12, 2))),
    "dynamicvit": Schedule(((3, 0.5), (6, 0.5), (9, 0.5))),
}
"""Of methods that need one, for 12 blocks; the others keep ``SELECTION`` from ``START_LAYER`` on.

A predictor has random weights: which tokens go does not change the time.
"""
UNPRUNED = "unpruned"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ARCHITECTURES = {"vit_s_16": (384, 6), "vit_b_16": (768, 12)}  # width, heads; 12 blocks at 224 pixels: 197 tokens

COLUMNS = {
    "device": "device",
    "architecture": "model",
    "precision": "precision",
    "batch_size": "batch",
    "method": "method",
    "tokens": "tokens",
    "flops": "multiply-adds",
    "ms_per_image": "ms/image",
    "ms_per_image_unpruned": "unpruned",
    "theoretical": "theoretical",
    "realised": "realised",
    "ratio": "realised/theoretical",
    **BAND_COLUMNS,
}


@dataclass(frozen=True)
class Way:
    """One way to run a model, and its multiply-adds per image."""

    run: Callable[[Tensor], object]
    flops: float


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the table of token pruning, in fp32 and, where the processor has instructions for it, bf16."""
    rows = [
        row
        for device, precisions, sizes, rounds in plan(quick)
        for row in bench_pruning(batch_sizes=sizes, precisions=precisions, rounds=rounds, device=device)
    ]
    return [BenchTable("token pruning against the unpruned model", COLUMNS, rows)]


def plan(quick: bool) -> Iterator[tuple[str, list[str], tuple[int, ...], int]]:
    """Set this process up and yield what to measure: device, precisions it has instructions for, batches, rounds."""
    prepare_process(seed=0, threads=1)
    batch_sizes, rounds = ((8, 1), 3) if quick else ((32, 8, 1), 7)
    for device in devices():
        yield device, [name for name in DTYPES if name == "fp32" or runs_bf16(device)], batch_sizes, rounds


def bench_pruning(
    architectures: Sequence[str] = ("vit_s_16",),
    batch_sizes: Sequence[int] = (32, 8, 1),
    precisions: Sequence[str] = ("fp32", "bf16"),
    methods: Sequence[str] = tuple(SELECTIONS),
    rounds: int = 7,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Yield one row (see ``COLUMNS``) per architecture, precision, batch size and method.

    Args:
        precisions: ``fp32`` or ``bf16``, of weights and images.
        rounds: timed rounds at the largest batch; smaller batches get more, in the same time.
    """
    for architecture in architectures:
        for precision in precisions:
            model = _model(architecture).to(device, DTYPES[precision])
            ways = {UNPRUNED: Way(model.core, model.dense_flops)}
            settings = {
                method: Pruning(SELECTION, START_LAYER, method, SCHEDULES.get(method)).with_predictors(model.host)
                for method in methods
            }
            for method, pruning in settings.items():
                ways[method] = Way(partial(run_pruned, model.core, pruning=pruning), model.cost_at(pruning))
            fixed = {"device": device, "architecture": architecture, "precision": precision}
            for row in over_batches(ways, batch_sizes, rounds, next(model.parameters())):
                fewest = settings[row["method"]].fewest_tokens(model.host)
                yield {**fixed, "tokens": f"{fewest} of {model.host.num_tokens}", **row}


def _model(architecture: str) -> Vit:
    width, heads = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    info = DataInfo("classification", 3, 224, 1000, (0.5,) * 3, (0.5,) * 3)
    section = VitSection(patch_size=16, width=width, heads=heads, depth=12, mlp=4 * width, dropout=0.0)
    return Vit(section, info).eval()


def run_pruned(model: nn.Module, images: Tensor, pruning: Pruning) -> Tensor:
    """Return the logits of a model that is pruned for this one pass."""
    with pruned_by(model, pruning):
        logits: Tensor = model(images)
    return logits


def over_batches(
    ways: Mapping[str, Way], batch_sizes: Sequence[int], rounds: int, like: Tensor
) -> Iterator[dict[str, Any]]:
    """Yield one row per batch size and way but the first, which is the base; images are made ``like`` the weights."""
    for batch_size in batch_sizes:
        count = rounds * max(1, min(20, max(batch_sizes) // batch_size))
        images = torch.randn(batch_size, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(like)
        with torch.inference_mode():
            seconds = interleaved({name: partial(way.run, images) for name, way in ways.items()}, count, 1)
        base = ways[UNPRUNED]
        for name, way in ways.items():
            if way is base:
                continue
            theoretical = base.flops / way.flops
            speed_up = ratio(seconds[UNPRUNED], seconds[name])
            yield {
                "batch_size": batch_size,
                "method": name,
                "flops": way.flops,
                "ms_per_image": 1000 * statistics.median(seconds[name]) / batch_size,
                "ms_per_image_unpruned": 1000 * statistics.median(seconds[UNPRUNED]) / batch_size,
                "theoretical": theoretical,
                "realised": speed_up.median,
                **speed_up.over(theoretical).row(),
            }
