"""Latency of a forward pass, warmed up and waited for: p50 and p95, as it is, as a CUDA graph, and compiled.

A CUDA graph needs shapes that do not depend on values: models that decide by a threshold have none.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from routing.bench.gpu.sizes import Sizes, family
from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, ratio
from routing.evaluation.interleaved import interleaved
from routing.models.base import VisionModel

BASE = "as it is"
COLUMNS = {
    "device": "device",
    "family": "family",
    "batch": "batch",
    "way": "way",
    "ms_p50": "p50, ms",
    "ms_p95": "p95, ms",
    "ratio": "faster, times",
    **BAND_COLUMNS,
    "failed": "left out",
}


def bench(sizes: Sizes, device: str) -> list[BenchTable]:
    """Return one table: a row per family, batch and way."""
    rows = [row for name in sizes.families for batch in sizes.batches for row in compare(name, batch, sizes, device)]
    return [BenchTable("latency of inference", COLUMNS, rows)]


def compare(name: str, batch: int, sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Yield one row per way of running a family; one that cannot be captured is named with the reason."""
    _, model, info = family(name, device)
    model.eval()
    images = torch.randn(batch, 3, info.input_size, info.input_size, device=device)
    fixed = {"device": device, "family": name, "batch": batch}
    ways: dict[str, Callable[[], object]] = {BASE: lambda: model(images).prediction}
    makers: dict[str, Callable[[VisionModel, Tensor], Callable[[], object]]] = {}
    if device == "cuda":
        makers["CUDA graph"] = graphed
        if sizes.compiles and batch == sizes.batches[0]:
            makers["torch.compile"] = compiled
    with torch.inference_mode():
        for way, make in makers.items():
            try:
                ways[way] = make(model, images)
            except Exception as error:  # whatever stands in the way is the result
                yield {**fixed, "way": way, "failed": _first_line(error)}
        seconds = interleaved(ways, 10 * sizes.rounds, warmup=3)
    for way in ways:
        quantiles = statistics.quantiles(seconds[way], n=20) if len(seconds[way]) > 1 else seconds[way] * 19
        row = {**fixed, "way": way, "ms_p50": 1000 * statistics.median(seconds[way]), "ms_p95": 1000 * quantiles[18]}
        yield {**row, **ratio(seconds[BASE], seconds[way]).row()}


def graphed(model: VisionModel, images: Tensor) -> Callable[[], object]:
    """Return the forward pass as a CUDA graph; raises what capturing raises."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries allocate what they need before the capture
        for _ in range(3):
            expected = model(images).prediction
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = model(images).prediction
    graph.replay()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    return graph.replay


def compiled(model: VisionModel, images: Tensor) -> Callable[[], object]:
    """Return the forward pass under ``torch.compile``, run once."""
    run = torch.compile(lambda: model(images).prediction)
    torch.testing.assert_close(run(), model(images).prediction, rtol=1e-3, atol=1e-3)
    return run


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:100]
