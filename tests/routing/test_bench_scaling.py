"""Exponents of known powers, the share of the compute ledger, and synthetic results that read as real ones."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from analysis.read.results import read_results
from routing.bench import scaling as bench
from routing.bench import start
from routing.bench.synthetic import write_results
from routing.bench.timing import exponent
from routing.config.run import RunConfig
from routing.errors import RoutingError
from routing.runner import run
from search_spaces.study.load import parse_study


def test_exponent_of_a_power_and_of_a_constant() -> None:
    sizes = [8, 1, 4, 2]
    assert exponent(sizes, [3 * size**1.5 for size in sizes]) == (pytest.approx(1.5), pytest.approx(1))
    assert exponent(sizes, [7.0] * 4) == (0, 1)
    slope, r2 = exponent([1, 10, 100], [1.0, 20.0, 100.0])  # logs 0, 1.301, 2: slope 1, residuals -.1, .2, -.1
    assert slope == pytest.approx(1)
    assert r2 == pytest.approx(1 - 0.0605 / 2.0605, abs=1e-3)


def test_an_exponent_needs_two_sizes() -> None:
    with pytest.raises(ValueError, match="at least two different sizes"):
        exponent([3, 3], [1.0, 2.0])


def test_training_step_along_every_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {axis: (key, values[:2]) for axis, (key, values) in bench.AXES.items()}
    monkeypatch.setattr(bench, "AXES", axes)
    rows = {axis: bench.training_step(axis, rounds=1) for axis in axes}
    assert [row["sizes"] for row in rows.values()] == ["16 32", "4 16", "0.125 0.25"]
    assert rows["images per batch"]["expected"] == pytest.approx(1)
    assert 0.9 < rows["patches per image"]["expected"] < 1.1
    assert 0.5 < rows["routing ratio"]["expected"] < 1
    for row in rows.values():
        assert set(row) == set(bench.FIT_COLUMNS)


def test_share_of_the_compute_ledger() -> None:
    rows = bench.ledger_share("digits", rounds=2, images=64)
    assert [row["part"] for row in rows] == [
        "closed form, every operating point",
        "check against what was executed, once per trial",
    ]
    for row in rows:
        assert set(row) == set(bench.LEDGER_COLUMNS)
        assert 0 < row["ratio"] < 1


def test_analyze_stops_where_it_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(folder: str) -> float:
        return 6 + len(read_results(folder).trials) / 100

    monkeypatch.setattr(bench, "_analyze", seconds)
    rows = bench.analyze((10, 100, 1_000, 10_000))
    assert [row["trials"] for row in rows] == [10, 100, 1_000]  # 10,000 would take 106 s
    assert [row["seconds"] for row in rows] == pytest.approx([6.1, 7, 16])
    assert rows[0]["exponent"] is None
    assert rows[2]["exponent"] == pytest.approx(0.359, abs=1e-3)


def test_synthetic_results_are_whole(tmp_path: Path) -> None:
    write_results(tmp_path, 10)
    found = read_results(tmp_path)
    assert found.problems == []
    assert len(found.trials) == 10
    assert len(found.points) == 4 * 1 + 6 * 8  # two of five models have one point, three have eight
    assert found.points.groupby("trial")["is_default"].sum().eq(1).all()


def test_the_trivial_study_is_valid_and_a_failure_is_told() -> None:
    assert parse_study(start.STUDY).trials == 1
    with pytest.raises(RoutingError, match="No such command"):
        start.finish(start._command("sweeep"))


def test_when_a_run_began(tmp_path: Path) -> None:
    config = RunConfig.from_dict({"dataset.num_train": 64, "dataset.num_val": 64, "training.num_epochs": 1})
    before = time.time()
    run(config.replace(**{"evaluation.operating_points": False}), out=tmp_path)
    assert before - 0.1 < start.run_started(tmp_path) < before + 0.5
