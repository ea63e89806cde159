"""Points that break a constraint are drawn and listed, but never chosen, ranked or compared: worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.findings.dense_match import dense_matches
from analysis.findings.families import ownership
from analysis.findings.fronts import dense_front
from analysis.findings.indicators import group_studies, joint_reference
from analysis.findings.picks import choose
from analysis.findings.summary import summarise
from analysis.page.chart_data import page_data
from analysis.page.comparison_page import comparison_data
from analysis.page.headline import chart_label, headline, verdict
from analysis.read.constraints import allowed, problems_of, why_none
from analysis.read.results import Results, read_results
from analysis.report import analyze
from routing.cli import main
from routing.config.names import ORACLE
from routing.config.registry import ROUTERS
from routing.errors import InputError
from routing.files.yaml_io import dump, load_file
from routing.objectives import Objective

OBJECTIVES = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.1),
    Objective(metric="flops", goal="minimize", reference=2e6),
)
POINTS = (("full_compute", 0.95, 9e5), ("aacn", 0.90, 3e5), ("full_compute", 0.85, 8e5), ("vit", 0.50, 1e5))


def results_of(constraints: Any, rows: tuple[tuple[str, float, float], ...] = POINTS) -> Results:
    points = pd.DataFrame(
        [
            {"trial": number, "model.name": model, "val_accuracy": accuracy, "flops": flops}
            for number, (model, accuracy, flops) in enumerate(rows)
        ]
    )
    trials = pd.DataFrame({"number": points["trial"], "state": "COMPLETE", "reason": None, "train_seconds": 1.0})
    study = {"name": "x", "constraints": constraints}
    return Results(
        folder=Path("none"), study=study, objectives=OBJECTIVES, trials=trials, points=points, environment={}
    )


def write_constraints(folder: Path, constraints: Any) -> None:
    study = load_file(folder / "study.yaml")[0]
    (folder / "study.yaml").write_text(dump({**study, "constraints": constraints}))


def test_a_family_whose_points_are_all_forbidden_is_named() -> None:
    # vit costs less than every allowed point: nothing on the front is within its cost
    lines = ownership(summarise(results_of(["val_accuracy >= 0.8"])))
    assert lines[-1] == "No point of the front belongs to vit: every point breaks a constraint."


def test_a_pick_keeps_to_the_constraints() -> None:
    summary = summarise(results_of(["val_accuracy >= 0.8", "flops <= 8.5e5"]))
    assert choose(summary, "accuracy=0.4")["trial"] == 1
    assert choose(summary, "budget=1M")["trial"] == 1
    with pytest.raises(InputError, match=r"no allowed point has accuracy >= 0\.92; the best point has 0\.9"):
        choose(summary, "accuracy=0.92")


def test_baselines_dense_front_and_savings_are_of_allowed_points() -> None:
    summary = summarise(results_of(["flops <= 8.5e5"]))
    assert summary.baselines["trial"].tolist() == dense_front(summary)["trial"].tolist() == [2]
    found = dense_matches(summary)
    assert found is not None
    assert found.best is None  # 0.95 would be as good as 0.90, but costs too much
    assert "of its compute" not in verdict(summarise(results_of(["flops <= 5e5"])))


def test_studies_are_compared_by_allowed_points() -> None:
    (group,) = group_studies([results_of(["val_accuracy >= 0.8", "flops <= 8.5e5"])])
    assert len(group.joint) == 1
    undeclared = [objective.model_copy(update={"reference": None}) for objective in OBJECTIVES]
    (bound, free) = (results_of(limits) for limits in (["val_accuracy >= 0.8"], []))
    bound.objectives = free.objectives = tuple(undeclared)
    assert joint_reference([bound])[0] < joint_reference([free])[0]


def test_nothing_but_forbidden_points_says_so() -> None:
    summary = summarise(results_of(["flops <= 1e3"]))
    why = "every point breaks a constraint (flops <= 1e3)"
    assert verdict(summary) == why
    assert headline(summary)[0] == f"E{why[1:]}: there is no front yet."
    assert why in chart_label(summary)
    with pytest.raises(InputError, match="nothing to export: every point breaks a constraint"):
        choose(summary, "best")


@pytest.mark.parametrize(
    ("constraints", "line"),
    [
        (["val_acc >= 0.1"], "'val_acc' is not measured at every point"),
        (["flops <= 1.2.3"], "cannot read 'flops <= 1.2.3'"),
        (5, "a list as in ['flops <= 1.0e6'], not 5; it is left out"),
        ("flops <= 1", "a list as in ['flops <= 1.0e6'], not 'flops <= 1'; it is left out"),
        ([5], "texts as in 'flops <= 1.0e6', not 5; left out"),
    ],
)
def test_what_cannot_be_read_is_one_line(constraints: Any, line: str) -> None:
    results = results_of(constraints)
    assert results.allowed.all()
    (problem,) = problems_of(results.points, constraints)
    assert problem.startswith("study.yaml: ")
    assert line in problem


def test_the_pages_know_which_points_are_allowed(tmp_path) -> None:
    bound, free = results_of(["flops <= 8.5e5"]), results_of([])
    for results in (bound, free):
        results.points = results.points.assign(knob="none", knob_value=None, is_default=True)
    kept = [False, True, True, True]
    assert page_data(summarise(bound))["points"]["allowed"] == kept
    assert comparison_data([free, bound], tmp_path)["points"]["allowed"] == [True] * 4 + kept


def test_a_damaged_list_does_not_stop_a_report(make_results, only_the_front, capsys) -> None:
    folder = make_results(trials=7)
    write_constraints(folder, 5)
    assert main(["analyze", str(folder)]) == 0
    assert "constraints: a list as in" in capsys.readouterr().out


def test_a_constraint_on_the_metric_of_a_plugin_is_read_from_points_csv(make_results, only_the_front) -> None:
    folder, limit = make_results(trials=7), "val_of_a_plugin >= 0.3"
    points = pd.read_csv(folder / "points.csv")
    broken = points["val_accuracy"] > 0.87
    points.assign(violates=broken.map({True: limit, False: None})).to_csv(folder / "points.csv", index=False)
    write_constraints(folder, [limit])
    found = read_results(folder)
    assert 0 < (~found.allowed).sum() == broken.sum()
    assert any(line.endswith("what breaks it is read from violates of points.csv") for line in found.problems)
    assert analyze([folder]).front["val_accuracy"].max() <= 0.87


def test_a_point_without_the_metric_breaks_the_constraint() -> None:
    assert allowed(pd.DataFrame({"flops": [1.0, None]}), ["flops <= 2"]).tolist() == [True, False]
    assert allowed(pd.DataFrame({"flops": [1.0]}), ["val_accuracy >= 0.1"]).tolist() == [False]


def test_an_oracle_is_drawn_and_never_chosen() -> None:
    found = results_of(None)
    found.points["model.router.mode"] = [None, ORACLE, None, None]  # of aacn's point
    summary = summarise(found)
    assert set(summary.front["model.name"]) == {"vit", "full_compute"}
    assert found.allowed.tolist() == [True, False, True, True]
    assert problems_of(found.points, None) == [
        "1 of 4 points are an oracle's, which is told where to look: not on the front"
    ]
    assert "No point of the front belongs to aacn: every point is an oracle's" in " ".join(ownership(summary))
    assert why_none(found.points[1:2]) == "every point is an oracle's, which is told where to look"
    assert why_none(found.points, ["flops <= 1"]) == "every point breaks a constraint (flops <= 1), or is an oracle's"


def test_the_router_modes_that_are_told_more_than_the_image_are_oracles() -> None:
    assert [name for name in ROUTERS if ROUTERS.get(name).needs] == [ORACLE]
