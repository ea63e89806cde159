"""Two studies against each other: worked out by hand, and by simulation for the interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.findings.indicators import Group
from analysis.findings.versus import hypervolume_ratio, lead, verdicts
from analysis.report import analyze
from routing.files.yaml_io import dump, load_file
from routing.objectives import Objective, losses_of

OBJECTIVES = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.1, scale="linear"),
    Objective(metric="flops", goal="minimize", reference=2e6, scale="log"),
)
CORNER = losses_of([[0.1, 2e6]], OBJECTIVES)[0]


def group(name, *fronts):
    return Group(name, tuple(losses_of(front, OBJECTIVES) for front in fronts))


def test_who_leads_between_which_costs():
    # accuracies .5 at 1 and .9 at 4, against .6 at 2: the first leads below 2 and from 4 on
    assert lead([[-0.5, 1], [-0.9, 4]], [[-0.6, 2]]) == [(1, 2, 1), (2, 4, -1), (4, math.inf, 1)]
    assert lead([[-0.5, 1]], [[-0.5, 1]]) == [(1, math.inf, 0)]


def test_the_verdict_says_who_dominates_or_who_is_ahead_where():
    good, poor = group("good", [[0.6, 2e5], [0.9, 1e6]]), group("poor", [[0.5, 2e5], [0.8, 1e6]])
    said = verdicts([poor, good], OBJECTIVES, CORNER)
    assert said[0] == "good dominates poor: its validation accuracy is better at every cost."
    assert "no interval: it takes 3 repeats of each study, and there are 1 and 1" in said[1]
    crossing = group("crossing", [[0.7, 4e5]])
    assert verdicts([good, crossing], OBJECTIVES, CORNER)[0] == (
        "The better validation accuracy, by compute: good from 200 k to 400 k; crossing from 400 k to 1.00 M; good "
        "from 1.00 M on."
    )
    assert verdicts([good, good], OBJECTIVES, CORNER)[0] == "The fronts of good and good are equal."


def test_a_repeat_with_hypervolume_0_is_counted_and_named():
    # one decade of compute times 0.5; a front beyond the reference and no front are both 0
    good, beyond = [[0.6, 2e5]], [[0.05, 2e5]]
    other = group("other", *[good] * 5)
    for nothing in (losses_of(beyond, OBJECTIVES), np.empty((0, 2))):
        one = Group("one", (*group("one", *[good] * 4).fronts, nothing))
        found = hypervolume_ratio(one, other, CORNER)
        assert found.mean == pytest.approx(4 / 5)
        assert math.isnan(found.low)
        assert verdicts([one, other], OBJECTIVES, CORNER)[-1] == (
            "The hypervolume of one is 0.800 times that of other (no interval: hypervolume 0, no point better than the "
            "reference, in 1 of 5 of one)."
        )


def test_the_interval_of_a_ratio_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    held, times = 0, 2000
    one_cost = (Objective(metric="val_accuracy", goal="maximize", reference=0.0, scale="linear"),)
    for _ in range(times):
        fronts = [random.lognormal(mean, 0.05, size=(n, 1, 1)) / 10 for mean, n in ((0.1, 4), (0.0, 6))]
        groups = [Group("x", tuple(losses_of(front, one_cost) for front in own)) for own in fronts]
        found = hypervolume_ratio(groups[0], groups[1], [0.0])
        held += found.low <= math.exp(0.1) <= found.high
    assert held / times == pytest.approx(0.95, abs=0.015)


def test_a_comparison_goes_where_it_is_told_and_says_what_differs(make_results, tmp_path, only_the_front):
    folders = [make_results(name, trials=7, seed=seed, name=name) for seed, name in enumerate(("a", "b"))]
    study = load_file(folders[1] / "study.yaml")[0]
    (folders[1] / "study.yaml").write_text(dump({**study, "sampler": {"name": "tpe", "seed": 3}}))
    out = tmp_path / "elsewhere"
    found = analyze(folders, out=out)
    assert found.comparison is not None
    assert found.comparison.report == out / "report.html"
    assert not (folders[0] / "comparison").exists()
    text = (out / "differences.md").read_text()
    assert "| sampler.name |  | tpe |" in text
    assert "study.name" not in text
    page = (out / "report.html").read_text()
    assert "<td>sampler.name</td>" in page
    assert "../a/report.html" in page
    assert "The hypervolume of a is " in page
