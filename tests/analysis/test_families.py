"""Who owns which stretch of the front: worked out by hand on a few points."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.findings.dense_match import dense_matches
from analysis.findings.families import family, ownership, stretches
from analysis.findings.fronts import dense_front, span
from analysis.findings.series import BLACK, look, looks_of, series
from analysis.findings.summary import Summary, summarise
from analysis.page.headline import headline
from analysis.read.results import Results
from routing.objectives import Objective

OBJECTIVES = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.1),
    Objective(metric="flops", goal="minimize", reference=2e6),
)


def summary_of(*rows: tuple[str, float, float]) -> Summary:
    """Return the findings of points (model, accuracy, flops), one trial each."""
    points = pd.DataFrame(
        [
            {"trial": number, "model.name": model, "val_accuracy": accuracy, "flops": flops}
            for number, (model, accuracy, flops) in enumerate(rows)
        ]
    )
    trials = pd.DataFrame({"number": points["trial"], "state": "COMPLETE", "reason": None, "train_seconds": 1.0})
    results = Results(
        folder=Path("none"), study={"name": "x"}, objectives=OBJECTIVES, trials=trials, points=points, environment={}
    )
    return summarise(results)


def ownership_of(*rows: tuple[str, float, float]) -> list[str]:
    """Return the sentences on who owns which region."""
    return ownership(summary_of(*rows))


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
    assert series(table).tolist() == ["a", "b", "b", "c"]
    free = table.drop(columns="arm")
    assert series(table, most=2).tolist() == series(free, most=2).tolist() == ["full_compute", "vit", "aacn", "aacn"]
    assert series(free).tolist() == ["full_compute", "vit", "aacn · top_k", "aacn · random"]
    assert series(free.drop(index=1)).tolist() == ["full_compute", "top_k", "random"]
    one_mode = free.drop(index=1).assign(**{"model.router.mode": "top_k"})
    assert series(one_mode).tolist() == ["full_compute", "aacn", "aacn"]
    assert series(table[["model.router.mode"]]).tolist() == [""] * 4
    assert series(free[:0]).tolist() == []


def test_dense_baselines_are_black_and_the_same_shape_in_every_picture() -> None:
    table = pd.DataFrame({"model.name": ["vit", "full_compute", "dense_matched", "aacn"]})
    found = looks_of(table, series(table))
    assert (found["full_compute"].colour, found["full_compute"].marker) == (BLACK, "s")
    assert found["dense_matched"].colour == BLACK
    assert (found["aacn"], found["vit"]) == (look(0), look(1))
    arms = pd.Series(["wide", "narrow", "conv", "aacn"])  # of an ablation, each of one model
    named = looks_of(table.assign(arm=arms), arms)
    assert named["narrow"] == found["full_compute"]


def test_the_range_follows_the_front_and_its_best_dense_rival() -> None:
    rows = [("aacn", 0.90, 2e5), ("aacn", 0.94, 3e5), ("cheap_compute", 0.3, 2.5e5), ("full_compute", 0.95, 1e6)]
    summary = summary_of(*rows, ("aacn", 0.1, 5e5))
    assert dense_front(summary)["model.name"].tolist() == ["cheap_compute", "full_compute"]
    assert span(summary) == pytest.approx((0.90 - 0.06 * 0.05, 0.95 + 0.06 * 0.05))
    assert span(summary, pd.Series([0.85])) == pytest.approx((0.85 - 0.06 * 0.1, 0.95 + 0.06 * 0.1))


def test_a_saving_is_measured_against_the_cheapest_dense_net_as_good() -> None:
    summary = summary_of(
        ("conv_net", 0.70, 1e5),
        ("conv_net", 0.80, 4e5),
        ("conv_net", 0.90, 9e5),
        ("early_exit", 0.80, 3e5),  # 3/4 of the conv net that is as good
        ("early_exit", 0.89, 7e5),  # the next better conv net costs 9e5
        ("early_exit", 0.85, 1.5e6),  # dearer than a better conv net
    )
    found = dense_matches(summary)
    assert found is not None
    assert found.best is not None
    assert found.saving is not None
    assert (found.best_row["flops"], found.best.dense["flops"]) == (7e5, 9e5)
    assert (found.saving.row["flops"], found.saving.dense["flops"], found.saving.share) == (3e5, 4e5, 0.75)
    assert any("needs 75% of the cheapest dense net as good" in line for line in headline(summary))


def test_no_saving_and_nothing_as_good_are_said() -> None:
    none = dense_matches(summary_of(("conv_net", 0.80, 1e5), ("early_exit", 0.79, 2e5)))
    assert none is not None
    assert (none.saving, none.best.share if none.best else None) == (None, 2.0)
    better = dense_matches(summary_of(("conv_net", 0.80, 1e5), ("early_exit", 0.81, 2e5)))
    assert better is not None
    assert (better.best, better.saving) == (None, None)
    assert dense_matches(summary_of(("early_exit", 0.81, 2e5))) is None
