"""Realised over theoretical speed-up of patch routing, token pruning and the literature's methods on one device."""

from __future__ import annotations

from routing.bench import literature, pruning, routed
from routing.bench.gpu.sizes import Sizes
from routing.bench.tables import BenchTable
from routing.bench.timing import runs_bf16
from routing.errors import MissingPackage
from routing.training.seeding import prepare_process

METHODS = ("importance_diversity", "cls_attention", "merge")


def routing(sizes: Sizes, device: str) -> list[BenchTable]:
    """Return routed dispatch against full_compute."""
    precisions = _precisions(device)
    shares = (0.25, 0.1) if sizes.compiles else (0.25,)
    cases = tuple(
        routed.Case(batch, share, precision, sizes.compiles and (batch, share, precision) == (32, 0.25, "fp32"))
        for batch in sizes.batches
        for share in shares
        for precision in precisions
    )
    rows = routed.inference(cases, sizes.rounds, device)
    return [BenchTable("routed inference against full_compute: crop, dispatch and pooling", routed.COLUMNS, rows)]


def tokens(sizes: Sizes, device: str) -> list[BenchTable]:
    """Return token pruning against the unpruned model."""
    prepare_process(0, 1)
    rows = pruning.bench_pruning(
        batch_sizes=sizes.batches[::-1],
        precisions=_precisions(device),
        methods=METHODS,
        rounds=_rounds(sizes),
        device=device,
    )
    return [BenchTable("token pruning against the unpruned model", pruning.COLUMNS, list(rows))]


def of_the_literature(sizes: Sizes, device: str) -> list[BenchTable]:
    """Return token reduction of the literature, on timm's ViT; no table where timm is not installed."""
    prepare_process(0, 1)
    try:
        rows = list(literature.compare(sizes.batches[::-1], _precisions(device), _rounds(sizes), device))
    except MissingPackage:
        return []
    return [BenchTable("token reduction of the literature, on timm's ViT", literature.COLUMNS, rows)]


def _precisions(device: str) -> list[str]:
    return ["fp32", "bf16"] if device == "cuda" and runs_bf16(device) else ["fp32"]


def _rounds(sizes: Sizes) -> int:
    return max(1, sizes.rounds // 3)
