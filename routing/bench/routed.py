"""``routing bench routing``: how much of the theoretical speed-up of patch routing is real.

Every number is realised speed-up / theoretical speed-up against full_compute: 1 means that skipped multiply-adds cost
no time. The routed model and full_compute are the product's own, crop from the original image included; the peers are
the other ways to write the same thing, and "products alone" are the matrix products of both branches on rows that were
gathered beforehand: no way of routing can be faster. Shapes: B batch, N patches, P values per patch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from routing.bench import whole_model
from routing.bench.peers import PEERS, Peer
from routing.bench.shapes import patch_model, random_images
from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, REALISED_COLUMNS, devices, ratio, runs_bf16
from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.evaluation.interleaved import interleaved
from routing.models.base import ModelOutput
from routing.models.patch.model import PatchModel
from routing.models.patch.parts import Encoded
from routing.models.patch.routers import RoutingDecision
from routing.training.seeding import prepare_process

# 14 x 14 patches of 16 x 16 RGB pixels: 768 values each, N = 196
SHAPE = DataInfo("classification", 3, 224, 10, (0.5,) * 3, (0.25,) * 3, patch_grid_size=14, patch_margin=0)
EXPERTS = {"model.experts.big": [2048, 2048], "model.experts.small": [128], "model.experts.width": 256}
LOOP_PATCHES = 200  # a Python loop over more patches only shows how slow it is


@dataclass(frozen=True)
class Case:
    """One comparison: batch size, share of patches on the big branch, precision; with torch.compile or without."""

    batch: int
    share: float
    precision: str = "fp32"
    compiled: bool = False


CASES = (
    Case(32, 0.25, compiled=True),
    Case(32, 0.1),
    Case(8, 0.25),
    Case(8, 0.1),
    Case(1, 0.25),
    Case(32, 0.25, "bf16"),
    Case(32, 0.1, "bf16"),
)
QUICK = (Case(32, 0.25), Case(32, 0.1), Case(8, 0.25), Case(1, 0.25), Case(32, 0.25, "bf16"))

COLUMNS = {
    "device": "device",
    "precision": "precision",
    "batch": "batch",
    "routing_ratio": "routing ratio",
    "way": "way",
    **REALISED_COLUMNS,
}
STEP_COLUMNS = {
    "device": "device",
    "batch": "batch",
    "routing_ratio": "routing ratio",
    "way": "way",
    "ratio": "times faster",
    **BAND_COLUMNS,
}
PROFILE_COLUMNS = {"operator": "operator", "work": "what it does", "share": "share of CPU time"}
WORK = {
    "aten::addmm": "linear layers of both branches and the head",
    "aten::clamp_min_": "ReLU",
    "aten::relu_": "ReLU",
    "aten::copy_": "crop of every patch out of the image",
    "aten::index_select": "rows of each branch, and their weights",
    "aten::scatter_add_": "pooling",
    "aten::mul": "features times weights",
    "aten::nonzero": "which rows",
}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables of routed inference, of whole models, of where the time goes, and of the training step."""
    found = [row for device in devices() for row in inference(QUICK if quick else CASES, 5 if quick else 25, device)]
    steps = [row for device in devices() for row in training(5 if quick else 15, device=device)]
    return [
        BenchTable("routed inference against full_compute: crop, dispatch and pooling", COLUMNS, found),
        *whole_model.bench(quick),
        BenchTable("where routed inference spends its time: batch 32, ratio 0.1", PROFILE_COLUMNS, profile()),
        BenchTable("routed training step against full_compute", STEP_COLUMNS, steps),
    ]


def inference(cases: tuple[Case, ...] = CASES, rounds: int = 15, device: str = "cpu") -> list[dict[str, Any]]:
    """Return one row per case and way of routing: realised / theoretical speed-up with its band."""
    prepare_process(0, 1)
    routed, full = _model("attention_routing").to(device), _model("full_compute").to(device)
    rows = []
    for case in cases:
        if case.precision == "fp32" or runs_bf16(device):
            rows += _compare(routed, full, case, rounds, device)
    return rows


def _model(name: str) -> PatchModel:
    keys: dict[str, Any] = {**EXPERTS, "model.name": name}
    if name == "attention_routing":
        keys["model.router.budget.unit"] = "ratio"
    return patch_model(RunConfig.from_dict(keys), SHAPE)


@torch.no_grad()
def _compare(routed: PatchModel, full: PatchModel, case: Case, rounds: int, device: str) -> list[dict[str, Any]]:
    n = routed.grid.num_patches
    images, scores_BN = random_images(SHAPE, case.batch).to(device), torch.randn(case.batch, n, device=device)
    hard_BN = torch.rand(case.batch, n, device=device) < case.share
    # as in evaluation: entered once, so that weights are cast once and not batch by batch
    with torch.autocast(device, dtype=torch.bfloat16, enabled=case.precision == "bf16"):
        seconds = interleaved(_ways(routed, full, case, images, scores_BN, hard_BN), rounds, warmup=1)
    theory = _theoretical(routed, float(hard_BN.float().mean()))
    rows = []
    for way in list(seconds)[1:]:
        found = ratio(seconds["full_compute"], seconds[way])
        row = {"device": device, "precision": case.precision, "batch": case.batch, "routing_ratio": case.share}
        rows.append({**row, "way": way, "theoretical": theory, "speed_up": found.median, **found.over(theory).row()})
    return rows


def _ways(
    routed: PatchModel, full: PatchModel, case: Case, images: Tensor, scores_BN: Tensor, hard_BN: Tensor
) -> dict[str, Callable[[], object]]:
    """Return the compared variants, full_compute first; in bf16 without the peers."""
    decision = RoutingDecision(hard_BN, hard_BN.float())
    everything = RoutingDecision(torch.ones_like(hard_BN), torch.ones_like(scores_BN))
    rows = {"big": _crop(routed, images)[hard_BN], "small": _crop(routed, images)[~hard_BN]}

    def ours() -> Tensor:
        return routed.dispatch(_encoded(routed, images, scores_BN), decision).prediction

    ways: dict[str, Callable[[], object]] = {
        "full_compute": lambda: full.dispatch(_encoded(full, images, scores_BN), everything),
        "ours": ours,
        "products alone": lambda: [routed.expert(branch)(rows[branch]) for branch in rows],
    }
    if case.precision == "fp32":
        weights_BN = scores_BN.softmax(dim=1)
        for name, peer in PEERS.items():
            if name != "python loop" or hard_BN.numel() <= LOOP_PATCHES:
                ways[name] = partial(_run_peer, peer, routed, images, decision, weights_BN)
    compiled = _compiled(ours) if case.compiled else None
    if compiled is not None:
        ways["ours, torch.compile"] = compiled
    return ways


def _run_peer(
    peer: Peer, model: PatchModel, images: Tensor, decision: RoutingDecision, weights_BN: Tensor
) -> ModelOutput:
    """Run a peer from the image to the prediction, as ours does."""
    return model.output(peer(model, _crop(model, images), decision.hard_BN, weights_BN), decision)


def _compiled(way: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
    """Return the way under torch.compile, run once; None where this machine cannot compile."""
    torch._logging.set_logs(all=logging.ERROR)  # that counting rows breaks the graph is known
    compiled = torch.compile(way, dynamic=True)
    try:
        torch.testing.assert_close(compiled(), way(), rtol=1e-4, atol=1e-5)
    except RuntimeError:  # no compiler
        return None
    return compiled


def _encoded(model: PatchModel, images: Tensor, scores_BN: Tensor) -> Encoded:
    return Encoded(scores_BN, model.grid.view(images))


def _crop(model: PatchModel, images: Tensor) -> Tensor:
    return model.grid.all(images).view(len(images), model.grid.num_patches, -1)


def _theoretical(model: PatchModel, share: float) -> float:
    """Return full_compute's multiply-adds over the routed ones, experts only: what dispatch runs."""
    big, small = model.branch_multiply_adds("big"), model.branch_multiply_adds("small")
    return big / (share * big + (1 - share) * small)


def profile(batch: int = 32, share: float = 0.1) -> list[dict[str, Any]]:
    """Return where the routed dispatch spends its time: self CPU time of the largest operators, and of the rest."""
    prepare_process(0, 1)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # silence the profiler's start and stop messages on stderr
    model = _model("attention_routing")
    images, scores_BN = random_images(SHAPE, batch), torch.randn(batch, model.grid.num_patches)
    hard_BN = torch.rand(scores_BN.shape) < share
    decision = RoutingDecision(hard_BN, hard_BN.float())
    with torch.no_grad():
        model.dispatch(_encoded(model, images, scores_BN), decision)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            for _ in range(5):
                model.dispatch(_encoded(model, images, scores_BN), decision)
    events = sorted(found.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in events)
    shares = {event.key: event.self_cpu_time_total / total for event in events[:6]}
    rows = [{"operator": name, "work": WORK.get(name), "share": share} for name, share in shares.items()]
    return [*rows, {"operator": "all others", "work": None, "share": 1 - sum(shares.values())}]


def training(rounds: int = 9, batch: int = 16, share: float = 0.25, device: str = "cpu") -> list[dict[str, Any]]:
    """Return how many times faster a counterfactual training step is than one of full_compute."""
    prepare_process(0, 1)
    images = random_images(SHAPE, batch).to(device)
    targets = torch.randint(0, 10, (batch,)).to(device)
    hard_BN = (torch.rand(batch, SHAPE.patch_grid_size**2) < share).to(device)

    def step(model: PatchModel, decision: RoutingDecision) -> None:
        output = model.train_form(model.encode(images), decision)
        torch.nn.functional.cross_entropy(output.prediction, targets).backward()
        model.zero_grad(set_to_none=True)

    routed, full = (_model(name).to(device).train() for name in ("attention_routing", "full_compute"))
    everything = RoutingDecision(torch.ones_like(hard_BN), torch.ones_like(hard_BN, dtype=torch.float32))
    seconds = interleaved(
        {
            "full_compute": lambda: step(full, everything),
            "counterfactual": lambda: step(routed, RoutingDecision(hard_BN, hard_BN.float())),
        },
        rounds,
        warmup=1,
    )
    found = ratio(seconds["full_compute"], seconds["counterfactual"])
    row = {"device": device, "batch": batch, "routing_ratio": share, "way": "counterfactual"}
    return [{**row, **found.row()}]
