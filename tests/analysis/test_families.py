"""Who owns which stretch of the front: worked out by hand on a few points."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.findings.families import family, kinds, ownership, stretches
from analysis.findings.summary import summarise
from analysis.read.results import Results
from routing.objectives import Objective

OBJECTIVES = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.1),
    Objective(metric="flops", goal="minimize", reference=2e6),
)


def ownership_of(*rows: tuple[str, float, float]) -> list[str]:
    """Return the sentences for points (model, accuracy, flops), one trial each."""
    points = pd.DataFrame(
        [
            {"trial": number, "model.name": model, "val_accuracy": accuracy, "flops": flops}
            for number, (model, accuracy, flops) in enumerate(rows)
        ]
    )
    trials = pd.DataFrame({"number": points["trial"], "state": "COMPLETE", "train_seconds": 1.0})
    results = Results(
        folder=Path("none"), study={"name": "x"}, objectives=OBJECTIVES, trials=trials, points=points, environment={}
    )
    return ownership(summarise(results))


def test_baselines_are_one_family() -> None:
    table = pd.DataFrame({"model.name": ["aacn", "full_compute", "cheap_compute", "vit"]})
    assert family(table).tolist() == ["aacn", "the dense baselines", "the dense baselines", "vit"]


def test_stretches_are_neighbours_on_the_front() -> None:
    front = pd.DataFrame({"model.name": ["aacn", "aacn", "vit", "aacn"]}, index=[7, 3, 9, 1])
    assert [(s.family, s.rows.index.tolist()) for s in stretches(front)] == [
        ("aacn", [7, 3]),
        ("vit", [9]),
        ("aacn", [1]),
    ]


def test_each_region_is_said_with_its_owner() -> None:
    lines = ownership_of(
        ("cheap_compute", 0.50, 1e5),
        ("attention_routing", 0.80, 3e5),
        ("attention_routing", 0.85, 4e5),
        ("aacn", 0.93, 6e5),
    )
    assert lines == [
        "Along the front, by compute: the dense baselines at 100 k (1 point, 50.00 %); attention_routing from 300 k to "
        "400 k (2 points, 80.00 % to 85.00 %); aacn at 600 k (1 point, 93.00 %)."
    ]


def test_a_family_without_a_point_is_named_with_what_beats_it() -> None:
    # vit's best costs 900 k; the best front point within 900 k is aacn's
    lines = ownership_of(("aacn", 0.8, 3e5), ("aacn", 0.9, 6e5), ("vit", 0.7, 9e5), ("vit", 0.6, 7e5))
    assert lines[1:] == ["No point of the front belongs to vit: it reaches 70.00 % at 900 k, where aacn has 90.00 %."]


def test_many_turns_are_counted() -> None:
    rows = [(("aacn", "vit")[i % 2], 0.5 + i / 100, 1e5 * (i + 1)) for i in range(9)]
    assert ownership_of(*rows) == ["Families take turns along the front; of its 9 points are: aacn 5, vit 4."]


def test_nothing_is_said_of_one_family() -> None:
    assert ownership_of(("aacn", 0.8, 3e5), ("aacn", 0.9, 6e5)) == []


def test_points_are_told_apart_by_arm_then_model_then_mode() -> None:
    table = pd.DataFrame(
        {
            "model.name": ["full_compute", "vit", "aacn", "aacn"],
            "model.router.mode": [None, None, "top_k", "random"],
            "arm": ["a", "b", "b", "c"],
        }
    )
    found = kinds(table, most=3)
    assert found is not None
    assert (found.name, found.tolist()) == ("arm", ["a", "b", "b", "c"])
    assert kinds(table, most=2) is None  # an ablation is read by its arms, or not at all
    found = kinds(table.drop(columns="arm"), most=3)
    assert found is not None
    assert (found.name, found.dropna().to_dict()) == ("model.name", {1: "vit", 2: "aacn", 3: "aacn"})
    one_family = table.drop(columns="arm").drop(index=1)
    found = kinds(one_family, most=3)
    assert found is not None
    assert (found.name, found.dropna().to_dict()) == ("model.router.mode", {2: "top_k", 3: "random"})
    assert kinds(one_family.assign(**{"model.router.mode": "top_k"}), most=3) is None
    assert kinds(table[["model.router.mode"]], most=3) is None
