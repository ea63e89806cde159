"""Studies whose objectives or constraints are measured only where a run asks for them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from small_studies import sweep_values

from routing.errors import InputError
from search_spaces import sweep
from search_spaces.study.load import parse_study


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("latency_ratio", r"runs report no latency_ratio; evaluation.costs: \[latency_ratio\] in the base adds it"),
        ("energy_j", r"runs report no energy_j; evaluation.costs: \[energy_j\] in the base adds it"),
    ],
)
def test_a_study_says_that_its_costs_are_measured(metric: str, message: str) -> None:
    cost = {"metric": metric, "goal": "minimize", "reference": 10}
    accuracy = {"metric": "val_accuracy", "goal": "maximize", "reference": 0.1}
    with pytest.raises(InputError, match=message):
        parse_study(sweep_values(objectives=[accuracy, cost]))
    with pytest.raises(InputError, match=message):
        parse_study(sweep_values(constraints=[f"{metric} <= 3"]))
    study = parse_study(sweep_values(objectives=[accuracy, cost], base={"evaluation.costs": [metric]}))
    assert study.objectives[1].metric == metric


def test_a_constraint_on_what_runs_do_not_report() -> None:
    with pytest.raises(InputError, match=r"no val_balanced_accuracy .*evaluation.metrics: \[balanced_accuracy\]"):
        parse_study(sweep_values(constraints=["val_balanced_accuracy >= 0.5"]))


@pytest.mark.slow
def test_a_sweep_that_minimizes_latency_goes_on(tmp_path: Path) -> None:
    objectives = [
        {"metric": "val_accuracy", "goal": "maximize", "reference": 0.0},
        {"metric": "latency_ratio", "goal": "minimize", "reference": 100},
    ]
    base = {"training.num_epochs": 1, "dataset.num_train": 100, "evaluation.costs": ["latency_ratio", "peak_memory_mb"]}
    study = parse_study(sweep_values(objectives=objectives, base=base, scheduler={"name": "moasha"}, trials=3))
    out = sweep(study, tmp_path / "out", trials=2, concurrency=2)
    sweep(study, tmp_path / "out", resume=True, concurrency=2)
    trials, points = pd.read_csv(out / "trials.csv"), pd.read_csv(out / "points.csv")
    assert trials["state"].tolist() == ["COMPLETE"] * 3
    assert (points["latency_ratio"] > 0).all()
    assert (points["peak_memory_mb"] > 0).all()
    default = points[points["is_default"]].set_index("trial")["latency_ratio"]
    assert default.to_dict() == trials.set_index("number")["latency_ratio"].to_dict()
