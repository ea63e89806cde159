"""Routed models as a whole, from the image to the prediction, against full_compute on the shapes of real studies.

Encoder, scores, router, crop, dispatch, aggregation and head are all in the time. The router is the default one, its
threshold set so that exactly the wanted share of the batch's patches is routed; theoretical speed-up is the ratio of
the multiply-adds that the compute ledger counted on the same batch.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from routing.bench.shapes import SHAPES, config_of, patch_model, random_images
from routing.bench.tables import BenchTable
from routing.bench.timing import REALISED_COLUMNS, devices, ratio
from routing.evaluation.compute import measure
from routing.evaluation.interleaved import interleaved
from routing.models.patch.model import PatchModel
from routing.training.seeding import prepare_process

BATCHES = (32, 256)
SHARES = (0.25, 0.1)
CHUNK = 32  # full_compute also in pieces that fit the cache better: the fairer base wherever that is faster

COLUMNS = {
    "device": "device",
    "shape": "shape",
    "batch": "batch",
    "routing_ratio": "routing ratio",
    "way": "way",
    "flops": "multiply-adds",
    "ms_per_image": "ms/image",
    **REALISED_COLUMNS,
}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the table of whole models."""
    rows = [
        row
        for device in devices()
        for shape in SHAPES
        for batch in BATCHES
        for row in compare(shape, batch, SHARES, rounds=9 if quick else 25, device=device)
    ]
    return [BenchTable("whole model, image to prediction, against full_compute", COLUMNS, rows)]


def compare(
    shape: str, batch: int, shares: Sequence[float], rounds: int = 25, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Return one row per routing ratio, and one of full_compute in pieces where the batch is larger than ``CHUNK``."""
    prepare_process(0, 1)
    with torch.no_grad():
        return _compare(shape, batch, shares, rounds, device)


def _compare(shape: str, batch: int, shares: Sequence[float], rounds: int, device: str) -> list[dict[str, Any]]:
    config = config_of(SHAPES[shape], "full_compute")
    full, info = patch_model(config).to(device), config.dataset.info()
    images = random_images(info, batch).to(device)
    ways: dict[str, Callable[[], object]] = {"full_compute": lambda: full(images)}
    flops = {"full_compute": _flops(full, images)}
    ratios: dict[str, float | None] = {}
    for share in shares:
        model = at_share(patch_model(config_of(SHAPES[shape], "attention_routing")).to(device), images, share)
        way = f"attention_routing {share:g}"
        ways[way] = _forward(model, images)
        flops[way], ratios[way] = _flops(model, images), share
    if batch > CHUNK:
        way = f"full_compute, {CHUNK} images at a time"
        ways[way] = lambda: [full(chunk) for chunk in images.split(CHUNK)]
        flops[way], ratios[way] = flops["full_compute"], None
    seconds = interleaved(ways, rounds)
    rows = []
    for way, share_or_none in ratios.items():
        theory = flops["full_compute"] / flops[way]
        found = ratio(seconds["full_compute"], seconds[way])
        rows.append(
            {
                "device": device,
                "shape": shape,
                "batch": batch,
                "routing_ratio": share_or_none,
                "way": way if share_or_none is None else "attention_routing",
                "flops": flops[way],
                "ms_per_image": 1000 * statistics.median(seconds[way]) / batch,
                "theoretical": theory,
                "speed_up": found.median,
                **found.over(theory).row(),
            }
        )
    return rows


def at_share(model: PatchModel, images: Tensor, share: float) -> PatchModel:
    """Return the routed model with its threshold set so that it routes this share of the patches of ``images``."""
    evidence = model.evidence(model.encode(images)).flatten().sort(descending=True).values
    model.set_knob(float(evidence[max(1, round(share * len(evidence))) - 1]))
    return model


def _forward(model: PatchModel, images: Tensor) -> Callable[[], object]:
    return lambda: model(images)


def _flops(model: PatchModel, images: Tensor) -> float:
    """Return multiply-adds per image, mean over the batch, as the compute ledger counts what was executed."""
    return float(measure(model, images).executed_per_image.double().mean())
