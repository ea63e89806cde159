"""``routing bench routing``: how much of the theoretical speed-up of patch routing is real.

Every number is realised speed-up / theoretical speed-up against full_compute: 1 means that skipped multiply-adds cost
no time. The routed model and full_compute are the product's own, crop from the original image included; the peers are
the other ways to write the same thing. Shapes: B batch, N patches, P values per patch, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from routing.bench.tables import BenchTable
from routing.bench.timing import interleaved, ratio
from routing.config import RunConfig
from routing.data import DataInfo
from routing.models import build_model
from routing.models.patch_routing import Encoded, PatchModel
from routing.models.routers import RoutingDecision
from routing.training.seeding import prepare_process

# 14 x 14 patches of 16 x 16 RGB pixels: 768 values each, N = 196
SHAPE = DataInfo("classification", 3, 224, 10, (0.5,) * 3, (0.25,) * 3, patch_grid_size=14, patch_margin=0)
EXPERTS = {"model.experts.big": [2048, 2048], "model.experts.small": [128], "model.experts.width": 256}
LOOP_PATCHES = 2_000  # a Python loop over more patches only shows how slow it is
CASES = ((32, 0.25), (32, 0.1), (8, 0.25), (8, 0.1), (1, 0.25))


COLUMNS = {
    "batch": "batch",
    "routing_ratio": "routing ratio",
    "way": "way",
    "speed_up": "speed-up",
    "ratio": "realised/theoretical",
    "p10": "p10",
    "p90": "p90",
    "n": "rounds",
}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables of routed inference, its profile, and the routed training step."""
    step_columns = {key: "times faster" if key == "ratio" else heading for key, heading in COLUMNS.items()}
    return [
        BenchTable("routed inference against full_compute", COLUMNS, inference(7 if quick else 25)),
        BenchTable("where routed inference spends its time", {"operator": "operator", "share": "share"}, profile()),
        BenchTable("routed training step against full_compute", step_columns, training(5 if quick else 15)),
    ]


def _model(name: str) -> PatchModel:
    keys: dict[str, Any] = {**EXPERTS, "model.name": name}
    if name == "attention_routing":
        keys["model.router.budget.unit"] = "ratio"
    model = build_model(RunConfig.from_dict(keys).model, SHAPE).eval()
    assert isinstance(model, PatchModel)
    return model


def _masked_dense(model: PatchModel, patches_BNP: Tensor, hard_BN: Tensor, weights_BN: Tensor) -> Tensor:
    features = torch.where(hard_BN.unsqueeze(-1), model.expert("big")(patches_BNP), model.expert("small")(patches_BNP))
    return torch.bmm(weights_BN.unsqueeze(1), features).squeeze(1)


def _python_loop(model: PatchModel, patches_BNP: Tensor, hard_BN: Tensor, weights_BN: Tensor) -> Tensor:
    pooled = []
    for patches, hard, weights in zip(patches_BNP, hard_BN, weights_BN, strict=True):
        features = [model.expert("big" if big else "small")(p) for p, big in zip(patches, hard.tolist(), strict=True)]
        pooled.append(weights @ torch.stack(features))
    return torch.stack(pooled)


def _boolean_mask(model: PatchModel, patches_BNP: Tensor, hard_BN: Tensor, weights_BN: Tensor) -> Tensor:
    features = patches_BNP.new_empty(*hard_BN.shape, model.width)
    features[hard_BN] = model.expert("big")(patches_BNP[hard_BN])
    features[~hard_BN] = model.expert("small")(patches_BNP[~hard_BN])
    return torch.bmm(weights_BN.unsqueeze(1), features).squeeze(1)


def _fixed_capacity(model: PatchModel, patches_BNP: Tensor, hard_BN: Tensor, weights_BN: Tensor) -> Tensor:
    """Small branch on all, big branch on as many slots per image as the fullest image needs."""
    features = model.expert("small")(patches_BNP)
    slots_BK = hard_BN.int().argsort(dim=1, descending=True, stable=True)[:, : int(hard_BN.sum(1).max())]
    index = slots_BK.unsqueeze(-1)
    big = model.expert("big")(patches_BNP.gather(1, index.expand(-1, -1, patches_BNP.shape[-1])))
    kept = torch.where(
        hard_BN.gather(1, slots_BK).unsqueeze(-1), big, features.gather(1, index.expand(-1, -1, model.width))
    )
    features = features.scatter(1, index.expand(-1, -1, model.width), kept)
    return torch.bmm(weights_BN.unsqueeze(1), features).squeeze(1)


def inference(rounds: int = 15, threads: int = 1) -> list[dict[str, Any]]:
    """Return one row per batch size, ratio and way of routing: realised / theoretical speed-up with its band."""
    prepare_process(0, threads)
    routed, full = _model("attention_routing"), _model("full_compute")
    return [row for batch, share in CASES for row in _case(routed, full, batch, share, rounds)]


@torch.no_grad()
def _case(routed: PatchModel, full: PatchModel, batch: int, share: float, rounds: int) -> list[dict[str, Any]]:
    n = routed.grid.num_patches
    images, scores_BN = torch.randn(batch, 3, 224, 224), torch.randn(batch, n)
    hard_BN, weights_BN = torch.rand(batch, n) < share, scores_BN.softmax(dim=1)
    decision = RoutingDecision(hard_BN, hard_BN.float())
    everything = RoutingDecision(torch.ones_like(hard_BN), torch.ones_like(scores_BN))
    ways: dict[str, Callable[[], object]] = {
        "full_compute": lambda: full.dispatch(_encoded(full, images, scores_BN), everything),
        "ours": lambda: routed.dispatch(_encoded(routed, images, scores_BN), decision),
        "masked dense": lambda: _masked_dense(routed, _crop(routed, images), hard_BN, weights_BN),
        "boolean mask": lambda: _boolean_mask(routed, _crop(routed, images), hard_BN, weights_BN),
        "fixed capacity": lambda: _fixed_capacity(routed, _crop(routed, images), hard_BN, weights_BN),
    }
    if batch * n <= LOOP_PATCHES:
        ways["python loop"] = lambda: _python_loop(routed, _crop(routed, images), hard_BN, weights_BN)
    seconds = interleaved(ways, rounds)
    theory = _theoretical(routed, float(hard_BN.float().mean()))
    rows = []
    for name in list(ways)[1:]:
        found = ratio(seconds["full_compute"], seconds[name])
        band = {key: value if key == "n" else value / theory for key, value in found.row().items()}
        rows.append({"batch": batch, "routing_ratio": share, "way": name, "speed_up": found.median, **band})
    return rows


def _encoded(model: PatchModel, images: Tensor, scores_BN: Tensor) -> Encoded:
    return Encoded(scores_BN, model.grid.view(images))


def _crop(model: PatchModel, images: Tensor) -> Tensor:
    return model.grid.all(images).view(len(images), model.grid.num_patches, -1)


def _theoretical(model: PatchModel, share: float) -> float:
    """Return full_compute's multiply-adds over the routed ones, experts only: what dispatch runs."""
    big, small = model.branch_multiply_adds("big"), model.branch_multiply_adds("small")
    return big / (share * big + (1 - share) * small)


@torch.no_grad()
def profile(batch: int = 32, share: float = 0.1, threads: int = 1) -> list[dict[str, Any]]:
    """Return where the routed dispatch spends its time: self CPU time of the six largest operators, as shares."""
    prepare_process(0, threads)
    model = _model("attention_routing")
    images, scores_BN = torch.randn(batch, 3, 224, 224), torch.randn(batch, model.grid.num_patches)
    hard_BN = torch.rand(scores_BN.shape) < share
    decision = RoutingDecision(hard_BN, hard_BN.float())
    model.dispatch(_encoded(model, images, scores_BN), decision)
    with torch.profiler.profile() as found:
        for _ in range(5):
            model.dispatch(_encoded(model, images, scores_BN), decision)
    events = sorted(found.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in events)
    return [{"operator": event.key, "share": event.self_cpu_time_total / total} for event in events[:6]]


def training(rounds: int = 9, batch: int = 16, threads: int = 1) -> list[dict[str, Any]]:
    """Return how many times faster a counterfactual training step is than one of full_compute, at ratio 0.25."""
    prepare_process(0, threads)
    images = torch.randn(batch, 3, 224, 224)
    targets = torch.randint(0, 10, (batch,))
    hard_BN = torch.rand(batch, 196) < 0.25

    def step(model: PatchModel, decision: RoutingDecision) -> None:
        output = model.train_form(model.encode(images), decision)
        torch.nn.functional.cross_entropy(output.prediction, targets).backward()
        model.zero_grad(set_to_none=True)

    routed, full = _model("attention_routing").train(), _model("full_compute").train()
    everything = RoutingDecision(torch.ones_like(hard_BN), torch.ones(batch, 196))
    seconds = interleaved(
        {
            "full_compute": lambda: step(full, everything),
            "counterfactual": lambda: step(routed, RoutingDecision(hard_BN, hard_BN.float())),
        },
        rounds,
    )
    found = ratio(seconds["full_compute"], seconds["counterfactual"])
    return [{"batch": batch, "routing_ratio": 0.25, "way": "counterfactual training step", **found.row()}]
