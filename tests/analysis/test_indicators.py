"""Epsilon, attainment and the comparison of studies."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.comparison import _surface
from analysis.figures.overlay import draw_overlay
from analysis.findings.indicators import (
    Group,
    attainment,
    compare_groups,
    epsilon,
    group_studies,
    joint_reference,
    same_seeds,
)
from analysis.findings.versus import hypervolume_ratio
from analysis.read.results import read_results
from analysis.report import analyze
from routing.errors import InputError
from routing.files.yaml_io import dump, load_file
from routing.objectives import Objective
from routing.pareto import hypervolume

pytestmark = pytest.mark.usefixtures("only_the_front")  # what is tested stands in tables and pages


def test_epsilon_by_hand():
    target = [[0, 1], [1, 0]]
    assert epsilon(target, target) == 0
    assert epsilon([[0.25, 1], [1, 0.5]], target) == 0.5  # (1, .5) must come down by .5 to reach (1, 0)
    assert epsilon([[0, 10], [10, 0]], [[0, 10], [10, 0], [5, 5]]) == 0.5  # scaled by the target's range
    assert math.isnan(epsilon(np.empty((0, 2)), target))


def test_attainment_by_hand():
    fronts = [[[1, 1]], [[2, 2]], [[3, 3]]]
    assert attainment(fronts, 1 / 3).tolist() == [[1, 1]]
    assert attainment(fronts, 0.5).tolist() == [[2, 2]]
    assert attainment(fronts, 1).tolist() == [[3, 3]]


def test_attainment_crossing_fronts():
    # both reach only the worse corner of each
    assert attainment([[[1, 3]], [[3, 1]]], 1).tolist() == [[3, 3]]
    assert attainment([[[1, 3]], [[3, 1]]], 0.5).tolist() == [[3, 1], [1, 3]]


def test_an_empty_repeat_attains_nothing():
    fronts = [np.array([[1.0, 1.0]]), np.empty((0, 2))]
    assert attainment(fronts, 0.5).tolist() == [[1, 1]]
    assert attainment(fronts, 1).shape == (0, 2)


@pytest.mark.parametrize("share", [0, 1.2, -1])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match=r"share must be in"):
        attainment([[[1, 1]]], share)


def test_every_count_of_repeats_finds_its_worst():
    rng = np.random.default_rng(0)
    for n in range(1, 12):
        fronts = [rng.random((1, 2)) for _ in range(n)]
        assert attainment(fronts, 1).tolist() == [np.concatenate(fronts).max(axis=0).tolist()]


def test_studies_are_compared_with_repeats(make_results):
    folders = [make_results(f"gp{s}", trials=8, seed=s, name="gp", unfinished=False) for s in range(3)]
    folders.append(make_results("random", trials=4, seed=7, name="random", unfinished=False))
    found = analyze(folders)
    assert found.comparison is not None
    studies = found.comparison.studies.set_index("study")
    assert studies["n"].to_dict() == {"gp": 3, "random": 1}
    assert studies.loc["gp", "hypervolume_low"] < studies.loc["gp", "hypervolume_mean"]
    assert math.isnan(studies.loc["random", "hypervolume_low"])
    assert studies.loc["gp", "epsilon"] < studies.loc["random", "epsilon"]
    folder = folders[0] / "comparison"
    assert {path.name for path in folder.iterdir()} >= {
        "overlay.png",
        "hypervolume.csv",
        "hypervolume.md",
        "report.html",
    }
    assert len(pd.read_csv(folder / "hypervolume.csv")) == 2


def test_a_repeat_without_a_point_yet_does_not_count_and_one_without_an_allowed_point_counts_0(make_results):
    def results(place, trials=7, **study):
        one = read_results(make_results(place, trials=trials, name="study", unfinished=False))
        one.study.update(study)
        return one

    whole, begun = results("a"), results("b", trials=0)
    broken = results("c", constraints=["val_accuracy >= 1"])
    assert not broken.points.empty
    (group,) = group_studies([whole, begun, broken])
    reference = joint_reference([whole])
    full = hypervolume(group.fronts[0], reference)
    table = compare_groups([group], reference)
    assert table["n"].tolist() == [2]
    assert table["hypervolume_mean"].tolist() == pytest.approx([full / 2])
    other = Group("other", (group.fronts[0],))
    assert hypervolume_ratio(group, other, reference).mean == pytest.approx(0.5)  # the table's ratio
    assert group_studies([begun]) == []
    surface = _surface(group, whole.objectives)
    assert surface.worst is not None
    assert surface.worst.empty
    assert all(path.exists() for path in draw_overlay([surface], whole.objectives, ["png"], whole.folder))


def test_a_folder_given_twice_is_no_repeat(make_results, monkeypatch):
    folder = make_results("a", trials=7)
    monkeypatch.chdir(folder.parent)
    assert analyze([folder, "a", "./a/../a"]).comparison is None
    found = analyze([folder, make_results("b", trials=7, seed=1), "a"])
    assert found.comparison is not None
    assert found.comparison.studies["n"].tolist() == [2]


def test_repeats_under_the_same_seeds_are_warned_of(make_results):
    def declared(place, **keys):
        folder = make_results(place, trials=7, seed=len(place))
        study = load_file(folder / "study.yaml")[0]
        (folder / "study.yaml").write_text(dump({**study, **keys}))
        return folder

    folders = [
        declared("a", sampler={"name": "auto", "seed": 0}, base={}),
        declared("bb", sampler={"name": "auto", "seed": 0}),
        declared("ccc", sampler={"name": "auto", "seed": 1}),
        declared("dddd", sampler={"name": "auto", "seed": 0}, base={"seed": 1}),
        declared("eeeee", name="another", sampler={"name": "auto", "seed": 0}),
        declared("ffffff", seeds=[0, 1]),
        declared("ggggggg", seeds=[0, 1]),
    ]
    first, second = same_seeds([read_results(folder) for folder in folders])
    assert f"{folders[1]}: sampler.seed 0 and seed 0, as in {folders[0]}: no independent repeat" in first
    assert f"{folders[6]}: seeds [0, 1], as in {folders[5]}" in second
    found = analyze(folders[:2])
    assert found.comparison is not None
    assert "no independent repeat" in found.comparison.report.read_text()


def test_studies_with_other_objectives_cannot_be_compared(make_results):
    first, second = make_results("a", trials=7), make_results("b", trials=7)
    text = (second / "study.yaml").read_text().replace("metric: flops", "metric: params")
    (second / "study.yaml").write_text(text)
    with pytest.raises(InputError, match=r"objectives \(maximize val_accuracy, minimize params in logs\) differ"):
        analyze([first, second])


def test_a_study_without_points_is_named(make_results):
    found = analyze([make_results("a", trials=7), make_results("b", trials=0)])
    assert found.comparison is not None
    assert "no operating point yet" in found.comparison.report.read_text()


@pytest.mark.parametrize(("repeats", "reached"), [(1, 1), (2, 2), (3, 2), (4, 3)])
def test_the_line_of_a_study_is_what_most_repeats_reach(repeats, reached):
    fronts = [np.array([[-0.1 * (index + 1), 1.0]]) for index in range(repeats)]  # accuracies .1, .2, ...
    objectives = (Objective(metric="val_accuracy", goal="maximize"), Objective(metric="flops", goal="minimize"))
    middle = _surface(Group("study", tuple(fronts)), objectives).middle
    assert middle["val_accuracy"].tolist() == pytest.approx([0.1 * (repeats - reached + 1)])
