"""The routing benchmark: the ways it compares give one answer, and its ratios follow from times and multiply-adds."""

from __future__ import annotations

import pytest
import torch

from routing.bench import routed as bench
from routing.bench import whole_model
from routing.bench.peers import PEERS
from routing.bench.shapes import CIFAR, config_of, patch_model, random_images
from routing.bench.timing import Band, ratio
from routing.data import DataInfo
from routing.evaluation.compute import measure
from routing.evaluation.interleaved import interleaved
from routing.models.patch.routers import RoutingDecision
from search_spaces.study.load import load_study


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = DataInfo("classification", 3, 16, 10, (0.5,) * 3, (0.25,) * 3, patch_grid_size=4, patch_margin=0)
    experts = {"model.experts.big": [32, 32], "model.experts.small": [4], "model.experts.width": 8}
    monkeypatch.setattr(bench, "SHAPE", shape)
    monkeypatch.setattr(bench, "EXPERTS", experts)


@torch.no_grad()
def test_all_ways_give_the_same_answer() -> None:
    torch.manual_seed(0)
    model = bench._model("attention_routing")
    images, scores = random_images(bench.SHAPE, 3), torch.randn(3, 16)
    hard = torch.rand(3, 16) < 0.3
    ours = model.dispatch(bench._encoded(model, images, scores), RoutingDecision(hard, hard.float())).prediction
    for name, peer in PEERS.items():
        pooled = peer(model, bench._crop(model, images), hard, scores.softmax(1))
        torch.testing.assert_close(model.head(pooled), ours, msg=name)


def test_rows_of_inference() -> None:
    rows = bench.inference((bench.Case(2, 0.25), bench.Case(2, 0.25, "bf16")), rounds=3)
    fp32 = [row["way"] for row in rows if row["precision"] == "fp32"]
    assert fp32 == ["ours", "products alone", *PEERS]
    assert [row["way"] for row in rows if row["precision"] == "bf16"] in ([], ["ours", "products alone"])
    for row in rows:
        assert set(row) == set(bench.COLUMNS)
        assert row["ratio"] == pytest.approx(row["speed_up"] / row["theoretical"])
        assert row["p10"] <= row["ratio"] <= row["p90"]
        assert row["n"] == 3


def test_theoretical_speed_up_by_hand() -> None:
    big, small = 48 * 32 + 32 * 32 + 32 * 8, 48 * 4 + 4 * 8
    expected = 16 * big / (4 * big + 12 * small)
    assert bench._theoretical(bench._model("attention_routing"), 0.25) == pytest.approx(expected)


def test_no_compiler_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(way: object, dynamic: bool) -> object:
        def run() -> None:
            raise RuntimeError("No working C++ compiler found")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    assert bench._compiled(lambda: torch.zeros(1)) is None


def test_profile_and_training_step() -> None:
    shares = bench.profile(batch=2)
    assert sum(row["share"] for row in shares) == pytest.approx(1)
    assert {"aten::addmm", "all others"} <= {row["operator"] for row in shares}
    [step] = bench.training(rounds=3, batch=2)
    assert set(step) == set(bench.STEP_COLUMNS)


@torch.no_grad()
def test_a_whole_model_routes_exactly_the_share_asked_for() -> None:
    config = config_of(CIFAR, "attention_routing")
    torch.manual_seed(0)
    images = random_images(config.dataset.info(), 8)
    model = whole_model.at_share(patch_model(config), images, 0.25)
    assert int(model(images).units_executed["big"].sum()) == 8 * 16 // 4
    rows = whole_model.compare("CIFAR", 40, (0.25,), rounds=2)
    assert [row["way"] for row in rows] == ["attention_routing", "full_compute, 32 images at a time"]
    full = measure(patch_model(config_of(CIFAR, "full_compute")), images).executed_per_image[0]
    executed = measure(model, images).executed_per_image.double().mean()
    assert rows[0]["theoretical"] == pytest.approx(float(full / executed), rel=1e-6)
    assert rows[1]["theoretical"] == 1
    for row in rows:
        assert set(row) == set(whole_model.COLUMNS)
        assert row["ratio"] == pytest.approx(row["speed_up"] / row["theoretical"])


def test_milliseconds_of_whole_models_are_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_model, "interleaved", lambda ways, _: {way: [1.0, 4.0, 6.0] for way in ways})
    [row] = whole_model.compare("digits", 4, (0.25,))
    assert row["ms_per_image"] == 1000


def test_cifar_is_the_shipped_study() -> None:
    base = load_study("routing_cifar10").base
    assert {key: base[key] for key in CIFAR} == CIFAR


def test_ratios_are_paired_and_the_order_rotates() -> None:
    found = ratio([2.0, 6.0, 20.0], [1.0, 2.0, 5.0])
    assert (found.median, found.n) == (3, 3)
    assert (found.low, found.high) == pytest.approx((2.2, 3.8))
    assert found.over(2) == Band(1.5, pytest.approx(1.1), pytest.approx(1.9), 3)
    ran: list[str] = []
    interleaved({name: lambda name=name: ran.append(name) for name in "abc"}, rounds=3, warmup=1)  # type: ignore[misc]
    assert "".join(ran) == "abc" + "abcbcacab"
