"""``routing compare``: the same data and seeds for all, one table, nothing trained twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from analysis.figures.compare import draw_comparison
from routing.cli import main
from routing.commands import compare as comparison
from routing.commands.compare import compare, compared_runs
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.evaluation.compute import expected_flops

ALL = ["learnable_threshold", "random", "full_compute", "dense_matched", "no_routing", "cheap_compute", "post_hoc"]


def test_arms_by_default() -> None:
    config = RunConfig.from_dict({"model.router.budget.target": 0.4, "model.experts.width": 32, "seed": 5})
    compared = compared_runs(config)
    assert list(compared) == ALL
    for arm in compared.values():
        assert (arm.seed, arm.model.experts.width) == (5, 32)  # type: ignore[attr-defined]
        assert (arm.dataset, arm.training) == (config.dataset, config.training)
    assert compared["random"].dotted()["model.router.budget.target"] == 0.4
    assert expected_flops(compared["dense_matched"]) == pytest.approx(expected_flops(config), rel=0.01)
    assert "post_hoc" not in compared_runs(config.replace(**{"model.aggregator": "attention"}))


def test_arms_by_name() -> None:
    compared = compared_runs(RunConfig(), ["top_k", "full_compute", "top_k"])
    assert list(compared) == ["top_k", "full_compute"]
    assert compared["top_k"].dotted()["model.router.mode"] == "top_k"
    with pytest.raises(
        InputError, match=r"unknown model or router mode 'full_compute2'; did you mean 'full_compute'\?"
    ):
        compared_runs(RunConfig(), ["full_compute2"])


def test_one_table_over_seeds_and_nothing_trained_twice(
    tiny: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.from_dict({**tiny, "evaluation.operating_points": False})
    names = ["top_k", "full_compute", "cheap_compute"]
    lines: list[str] = []
    compared = compare(config, names, 2, folder, lines.append)
    assert [row["name"] for row in compared.rows] == names
    assert len(compared.runs) == len(lines) == 6
    top_k, full, cheap = compared.rows
    assert full["share_of_full"] == 1.0
    assert full["routing_ratio"] is None
    assert top_k["share_of_full"] == pytest.approx(0.3, abs=0.02)
    assert cheap["flops"] < top_k["flops"] < full["flops"]
    assert {row["seeds"] for row in compared.rows} == {2}
    assert all(row["ms_per_image"] > 0 for row in compared.rows)
    own = [run["val_accuracy"] for run in compared.runs if run["name"] == "full_compute"]
    assert full["val_accuracy"] == pytest.approx(sum(own) / 2)
    assert pd.read_csv(folder / "compare.csv")["name"].tolist() == names
    assert len(pd.read_csv(folder / "compare_runs.csv")) == 6
    (path,) = draw_comparison(compared, folder)
    assert Image.open(path).width > 600

    monkeypatch.setattr(comparison, "run", lambda *args, **kwargs: pytest.fail("trained again"))
    again = compare(config, names, 2, folder, lines.append)
    assert [row["val_accuracy"] for row in again.rows] == [row["val_accuracy"] for row in compared.rows]
    other = config.replace(**{"training.learning_rate": 0.5})
    with pytest.raises(InputError, match="holds a run of another configuration"):
        compare(other, names, 2, folder, lines.append)


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--dataset.num_train", "64", "--dataset.num_val", "32", "--dataset.num_test", "32"]
    command = ["compare", "--out", str(folder / "c"), "--models", "top_k,cheap_compute", "--training.num_epochs", "1"]
    assert main([*command, *small, "--evaluation.metrics", "[top5_accuracy]"]) == 0
    printed = capsys.readouterr().out
    for word in (
        "top_k",
        "cheap_compute",
        "of full",
        "ms/image",
        "val loss",
        "val top-5 accuracy",
        "multiply-adds p95",
        "compare.png",
        "compare.csv",
    ):
        assert word in printed
    assert {"val_top5_accuracy", "val_top5_accuracy_sd", "val_loss", "flops_p5"} <= set(
        pd.read_csv(folder / "c" / "compare.csv")
    )
    assert main(["compare", "--models", "topk"]) == 2
    assert "did you mean 'top_k'?" in capsys.readouterr().err


def test_what_belongs_to_one_threshold_stays_with_it(tiny: dict[str, Any], folder: Path) -> None:
    """An exported config has the knob's value: a share for another router, or nothing at all for a baseline."""
    keys = {"evaluation.knob_value": 0.4, "model.router.threshold_jitter": 0.5}
    config = RunConfig.from_dict({**tiny, **keys})
    compared = compared_runs(config, [*ALL, "gumbel"])
    assert compared["learnable_threshold"] == config
    assert all(arm.evaluation.knob_value is None for name, arm in compared.items() if name != "learnable_threshold")
    jitter = {name: arm.dotted().get("model.router.threshold_jitter") for name, arm in compared.items()}
    assert (jitter["random"], jitter["post_hoc"], jitter["gumbel"]) == (0.0, 0.0, 0.5)
    for arm in compared.values():
        expected_flops(arm)


def test_what_cannot_be_met_is_said_before_anything_is_trained(folder: Path) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            (folder / "images" / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(folder / "images" / split / name / "0.png")
    keys = {"dataset.name": "image_folder", "dataset.root": str(folder / "images"), "model.router.mode": "top_k"}
    with pytest.raises(InputError, match="'oracle' needs the box"):
        compare(RunConfig.from_dict(keys), ["top_k", "oracle"], 1, folder / "out", lambda line: None)
    assert not (folder / "out").exists()


def test_every_row_is_a_share_of_the_same_compute(tiny: dict[str, Any], folder: Path) -> None:
    keys = {**tiny, "model.name": "vit", "model.width": 16, "model.depth": 2, "evaluation.operating_points": False}
    rows = compare(RunConfig.from_dict(keys), ["vit", "full_compute"], 1, folder, lambda line: None).rows
    shares = [row["share_of_full"] for row in rows]
    assert shares == [1.0, pytest.approx(rows[1]["flops"] / rows[0]["flops"])]
