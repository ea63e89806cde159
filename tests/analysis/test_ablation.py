"""Ablation statistics against hand-computed answers, and what may be claimed from few seeds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.figures.front import draw_front
from analysis.findings.ablation import (
    ablation_table,
    answers,
    arm_runs,
    baseline_arm,
    compare_arms,
    dominance_probability,
    holm,
    paired_difference,
)
from analysis.findings.summary import summarise
from analysis.read.results import read_results
from analysis.report import analyze
from routing.files.yaml_io import dump, load_file
from routing.objectives import Objective


def test_holm_by_hand():
    # sorted .01 .02 .04 -> x3, x2, x1 = .03 .04 .04, running maximum, capped at 1
    np.testing.assert_allclose(holm([0.04, 0.01, 0.02]), [0.04, 0.03, 0.04])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1, 1])
    np.testing.assert_allclose(holm([math.nan, 0.03, 0.01]), [math.nan, 0.03, 0.02])
    assert holm([]).shape == (0,)


def test_paired_difference_uses_common_seeds_only():
    arm = pd.Series([3.0, 5.0, 100.0], index=[1, 2, 9])
    baseline = pd.Series([1.0, 2.0, 0.0], index=[1, 2, 3])
    # differences 2 and 3: mean 2.5, sd .7071, d_z 3.5355; t = 5, p with 1 degree of freedom = .1257
    found = paired_difference(arm, baseline)
    assert found["pairs"] == 2
    assert found["diff"] == 2.5
    assert found["effect"] == pytest.approx(3.535534)
    assert found["p"] == pytest.approx(0.125666, abs=1e-6)


def test_paired_difference_without_spread_or_seeds():
    same = pd.Series([1.0, 2.0], index=[0, 1])
    assert paired_difference(same, same)["p"] == 1.0
    assert math.isnan(paired_difference(same + 1, same)["p"])
    assert paired_difference(same, pd.Series([1.0], index=[7]))["pairs"] == 0


def test_dominance_probability_by_hand():
    # (1, 1) dominates (2, 2) and (1, 3); (2, 2) dominates neither (2, 2) nor (1, 3)
    assert dominance_probability([[1, 1], [2, 2]], [[2, 2], [1, 3]]) == (0.5, 0.0)
    assert dominance_probability([[1, 2]], [[2, 1]]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="runs of both"):
        dominance_probability(np.empty((0, 2)), [[1, 1]])


def test_arms_against_the_baseline(make_ablation):
    compared = compare_arms(read_results(make_ablation(seeds=6))).set_index("arm")
    assert compared["n"].tolist() == [6, 6, 6]
    assert compared.loc["mode=random", "verdict"] == "worse"
    assert compared.loc["mode=top_k", "verdict"] == "no clear difference"
    # seeds differ by one point each and the difference by less: pairing takes the seeds' spread out
    width = compared.loc["mode=random", "val_accuracy_diff_high"] - compared.loc["mode=random", "val_accuracy_diff_low"]
    unpaired = compared.loc["mode=random", "val_accuracy_high"] - compared.loc["mode=random", "val_accuracy_low"]
    assert width < unpaired / 2
    assert compared.loc["mode=random", "val_accuracy_diff"] == pytest.approx(-0.2, abs=0.01)


def test_few_seeds_allow_no_claim(make_ablation):
    results = read_results(make_ablation(seeds=3))
    compared = compare_arms(results)
    assert compared["verdict"].str.contains("too few").all()
    text = " ".join(cell for row in ablation_table(compared, results).rows for cell in row.cells)
    assert "too few seeds for a claim (3 of 5)" in text


def test_repeated_splits_have_their_median(make_ablation):
    results = read_results(declare(make_ablation(seeds=6), split_by_seed=True))
    compared = compare_arms(results).set_index("arm")
    values = arm_runs(results).groupby("arm")["val_accuracy"].median()
    assert compared["val_accuracy_median"].to_dict() == values.to_dict()
    shown = ablation_table(compared.reset_index(), results)
    place = [column.label for column in shown.columns].index("median")
    assert [row.cells[place] for row in shown.rows] == [f"{100 * values[arm]:.2f}" for arm in compared.index]
    plain = read_results(declare(results.folder, split_by_seed=False))
    assert "median" not in [column.label for column in ablation_table(compared.reset_index(), plain).columns]


def test_one_seed_has_no_interval(make_ablation):
    results = read_results(make_ablation(seeds=1))
    rows = ablation_table(compare_arms(results), results).rows
    assert len(rows) == 3
    assert "nan" not in " ".join(cell for row in rows for cell in row.cells)
    assert answers(compare_arms(results), results.objectives)[0].endswith("multiply-adds, one seed.")


def test_analyze_writes_the_tables(make_ablation):
    found = analyze([make_ablation()])
    folder = found.folder / "tables"
    assert {path.name for path in folder.iterdir()} == {"ablation.csv", "ablation.md", "ablation.tex", "front.tex"}
    assert len(pd.read_csv(folder / "ablation.csv")) == 3
    assert r"mode=top\_k" in (folder / "ablation.tex").read_text()
    assert "forest.png" in {path.name for path in found.figures}
    assert "mode=random" in found.report.read_text()


def test_the_front_tells_arms_apart_while_there_are_few(make_ablation):
    folder = make_ablation()
    drawn = draw_front(summarise(read_results(folder)), ["svg"], folder)[0].read_text()
    assert all(f">{name}<" in drawn for name in ("baseline", "mode=top_k", "mode=random"))
    assert "all operating points" not in drawn
    points = pd.read_csv(folder / "points.csv")
    many = [points.assign(arm=points["arm"] + str(copy)) for copy in range(6)]
    pd.concat(many).to_csv(folder / "points.csv", index=False)
    drawn = draw_front(summarise(read_results(folder)), ["svg"], folder)[0].read_text()
    assert ">top_k<" in drawn
    assert "mode=top_k" not in drawn


def test_arms_without_a_baseline(make_ablation):
    folder = make_ablation(seeds=2)
    for name in ("trials.csv", "points.csv"):
        (folder / name).write_text((folder / name).read_text().replace("baseline", "7"))
    results = read_results(folder)
    compared = compare_arms(results)
    assert compared["verdict"].eq("no baseline under the same seeds").all()
    assert "nan" not in " ".join(cell for row in ablation_table(compared, results).rows for cell in row.cells)
    assert "forest.png" not in {path.name for path in analyze([folder]).figures}


def declare(folder, **keys):
    """Put keys into study.yaml."""
    study = load_file(folder / "study.yaml")[0]
    (folder / "study.yaml").write_text(dump({**study, **keys}))
    return folder


def test_of_declared_arms_the_first_is_the_baseline(make_ablation):
    folder = make_ablation(seeds=6)
    for name in ("trials.csv", "points.csv"):
        (folder / name).write_text((folder / name).read_text().replace(",baseline,", ",joint,"))
    levels = {"joint": {}, "mode=top_k": {}, "mode=random": {}}
    results = read_results(declare(folder, design="arms", factors={"s": levels}))
    compared = compare_arms(results)
    assert compared["verdict"].tolist() == ["baseline", "no clear difference", "worse"]
    shown = ablation_table(compared, results)
    assert shown.caption == "arms: every arm against joint"
    assert "Difference: arm minus joint" in shown.note
    assert answers(compared, results.objectives)[0].startswith("The baseline (joint) reaches 90.")
    assert "forest.png" in {path.name for path in analyze([folder]).figures}
    # declared in another order, runs in the same
    results = read_results(declare(folder, factors={"s": dict(reversed(levels.items()))}))
    assert compare_arms(results).set_index("arm")["verdict"].to_dict() == {
        "joint": "better",
        "mode=top_k": "better",
        "mode=random": "baseline",
    }


def test_a_confirmation_has_no_baseline(make_ablation):
    folder = declare(make_ablation(seeds=2), design="arms", factors={"trial": {"mode=top_k": {}, "mode=random": {}}})
    assert baseline_arm(read_results(folder)) == "baseline"


def test_a_sweep_has_no_arms(make_results):
    assert compare_arms(read_results(make_results(trials=7))).empty


def test_the_answer_in_sentences():
    objectives = (
        Objective(metric="val_accuracy", goal="maximize", reference=0.2),
        Objective(metric="flops", goal="minimize", reference=2e6),
    )
    rows = [("baseline", 0.9, 0.0, 1e6, "baseline"), ("thin", 0.85, -0.05, 5e5, "worse"),
            ("wide", 0.93, 0.03, 2e6, "better"), ("deep", 0.84, -0.06, 1.5e6, "worse")]  # fmt: skip
    compared = pd.DataFrame(
        [
            {
                "arm": arm,
                "is_baseline": arm == "baseline",
                "n": 5,
                "pairs": 5,
                "val_accuracy_mean": a,
                "val_accuracy_diff": d,
                "flops_mean": f,
                "verdict": v,
            }
            for arm, a, d, f, v in rows
        ]
    )
    assert answers(compared, objectives) == [
        "The baseline reaches 90.00 % validation accuracy at 1.00 M multiply-adds, mean of 5 seeds.",
        "Better: wide (+3.00 points at 200% of its compute).",
        "Worse: thin (-5.00 points at 50% of its compute), deep (-6.00 points at 150% of its compute).",
    ]
    assert answers(compared[1:], objectives) == []
    srcc = compared.rename(columns=lambda name: name.replace("val_accuracy", "val_srcc")).drop(columns="flops_mean")
    assert answers(srcc[:2], (Objective(metric="val_srcc", goal="maximize", reference=0.2),)) == [
        "The baseline reaches 0.9 validation SRCC, mean of 5 seeds.",
        "Worse: thin (-0.05).",
    ]


@pytest.mark.parametrize("name", ["None", "NA", "null", "nan"])
def test_an_arm_may_have_a_name_that_means_nothing_elsewhere(make_ablation, name):
    folder = make_ablation()
    for table in ("trials.csv", "points.csv"):
        text = (folder / table).read_text()
        assert ",mode=random," in text
        (folder / table).write_text(text.replace(",mode=random,", f",{name},"))
    results = read_results(folder)
    assert results.trials["reason"].isna().all()
    assert name in set(compare_arms(results)["arm"])
