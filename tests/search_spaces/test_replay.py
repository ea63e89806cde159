"""Replay of recorded curves: epochs are counted, only whole trainings give points, recordings read back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from optuna.trial import TrialState
from small_studies import sweep_values

from routing.errors import InputError
from routing.files.results_folder import LEDGER_FILE, trial_folder
from search_spaces.bench.recorded import (
    DIGITS,
    Recorded,
    RecordedPoints,
    read_points,
    read_recorded,
    record,
    record_points,
)
from search_spaces.bench.replay import (
    Trace,
    compare_rules,
    interval,
    quantile_within,
    replay_rule,
)
from search_spaces.bench.tasks import CurveRegression, Regression
from search_spaces.ledger.folder import write_study
from search_spaces.ledger.ledger import Ledger
from search_spaces.plan import blueprint
from search_spaces.study.load import load_study, parse_study
from search_spaces.study.schema import SchedulerSection, SweepStudy

STUDY = parse_study(sweep_values())
assert isinstance(STUDY, SweepStudy)
X, Y = "model.router.threshold_init", "model.router.temperature"
TWICE = math.log10(2)
"""Decades of a cost of 1e6 below the reference, 2e6."""


def trial(quality: float, flops: float = 1e6, epochs: int = 3) -> Recorded:
    """Quality is told from the first epoch on."""
    curve = [{"epoch": e, "val_accuracy": quality * (1 - 0.5**e), "flops": flops} for e in range(1, epochs + 1)]
    return Recorded({X: quality, Y: 1.0}, flops, curve)


def test_only_whole_trainings_give_points_and_every_epoch_costs() -> None:
    # the only rung is epoch 1. Order of quality: .5 .9 .3 .2 .8
    trials = [trial(q) for q in (0.5, 0.9, 0.3, 0.2, 0.8)]
    asha = SchedulerSection(name="asha", reduction_factor=3)
    trace = replay_rule(trials, asha, STUDY.objectives, budget=100)
    # 1 and 2: fewer than three peers, go on (3 + 3); 3: rank 2 of 3, stopped (1); 4: stopped (1);
    # 5: rank 1 of 5, one goes on (5 / 3 = 1): stopped (1)
    assert trace.spent == [3, 6]
    assert trace.started == 5
    assert trace.volumes == pytest.approx([0.5 * 0.875 * TWICE, 0.9 * 0.875 * TWICE])
    plain = replay_rule(trials, SchedulerSection(name="none"), STUDY.objectives, budget=9)
    assert plain.spent == [3, 6, 9]
    assert plain.started == 3


def test_a_trace_answers_by_budget_and_by_volume() -> None:
    trace = Trace([3, 6, 10], [1.0, 2.0, 2.5], started=4)
    assert [trace.at(budget) for budget in (2, 3, 9, 10)] == [0.0, 1.0, 2.0, 2.5]
    assert [trace.reaching(volume) for volume in (1.0, 2.2, 3.0)] == [3, 10, None]


def test_rules_are_compared_on_the_same_orders() -> None:
    trials = [trial(i / 40, flops=1e5 * (1 + i % 7)) for i in range(40)]
    rows = {row["rule"]: row for row in compare_rules(trials, STUDY, seeds=5)}
    assert rows["none"]["hypervolume"] == pytest.approx(1.0)
    assert rows["none"]["full_trainings"] <= 40
    assert (rows["moasha"]["lead_low"], rows["moasha"]["lead_high"]) == (0.0, 0.0)
    assert all(row["low"] <= row["hypervolume"] <= row["high"] for row in rows.values())


def test_what_was_not_reached_is_no_number() -> None:
    assert quantile_within([10, 20, 30, None], 0.5, 100) == 25
    assert quantile_within([10, 20, None, None], 0.5, 100) == "not within 100"
    assert quantile_within([10, 20, 30, None], 0.9, 100) == "not within 100"
    assert quantile_within([*range(10), None], 0.9, 100) == 9  # exactly the tenth of eleven
    assert quantile_within([None], 0.5, 80) == "not within 80"


def test_interval_of_a_mean() -> None:
    import numpy as np

    assert interval(np.array([3.0, 3.0])) == (3.0, 3.0)
    low, high = interval(np.arange(101.0))
    assert low < 50 < high
    assert high - low == pytest.approx(2 * 1.96 * 29.3 / 101**0.5, rel=0.1)  # sd of 0..100 is 29.2


def test_a_recording_reads_back(tmp_path: Path) -> None:
    study = parse_study(sweep_values())
    write_study(tmp_path, study)
    ledger = Ledger(str(tmp_path / LEDGER_FILE), study.name, study.objectives)
    params = {X: 0.25, Y: 1.5}
    number = ledger.start(params, blueprint(study).space.distributions(), {"expected_flops": 3e5, "cpu_seconds": 2.5})
    folder = trial_folder(tmp_path, number)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(blueprint(study).configure(params).to_yaml())
    (folder / "history.csv").write_text("epoch,train_loss,val_accuracy,flops\n1,2.0,0.5,100\n2,1.0,0.75,90\n")
    ledger.finish(number, TrialState.COMPLETE, [0.75, 90.0])
    assert record([tmp_path], tmp_path / "r.csv", study) == 1
    [found] = read_recorded(tmp_path / "r.csv", ["val_accuracy", "flops"])
    assert found.setting == params
    assert found.expected_flops == 3e5
    assert found.curve == [
        {"epoch": 1, "val_accuracy": 0.5, "flops": 100},
        {"epoch": 2, "val_accuracy": 0.75, "flops": 90},
    ]
    points = [
        {"knob": "threshold", "knob_value": at, "is_default": at == 0.5, "val_accuracy": at, "flops": 100 * at}
        for at in (0.25, 0.5)
    ]
    (folder / "metrics.json").write_text(json.dumps({"metrics": {"train_seconds": 2.5}, "points": points}))
    assert record_points([tmp_path], tmp_path / "p.csv", study) == 1
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["knob_value"].tolist() == table["val_accuracy"].tolist() == [0.25, 0.5]
    assert table["is_default"].tolist() == [False, True]
    (read,) = read_points(tmp_path / "p.csv", ["val_accuracy"])
    assert (read.setting[X], read.default, read.points) == (0.25, [0.5], [[0.25], [0.5]])
    assert (set(table["cpu_seconds"]), set(table[X]), set(table["trial"])) == ({2.5}, {0.25}, {0})
    with pytest.raises(InputError, match="no recording"):
        read_recorded(tmp_path / "none.csv", [])
    stopping = parse_study(sweep_values(scheduler={"name": "asha"}))
    write_study(tmp_path, stopping)
    with pytest.raises(InputError, match="stops no trial"):
        record([tmp_path], tmp_path / "r.csv", study)


def test_a_regression_answers_between_recorded_trials() -> None:
    trials = [
        Recorded({X: x, Y: y}, 1e6, [{"epoch": 1, "val_accuracy": 0.5 + x / 8, "flops": 1e5 * (3 + x)}])
        for x in (-2.0, -1.0, 0.0, 1.0, 2.0)
        for y in (0.1, 0.5, 3.0)
    ]
    accuracy, flops = Regression(trials, STUDY)({X: 2.0, Y: 0.5})
    assert accuracy == pytest.approx(0.75, abs=0.05)
    assert flops == pytest.approx(5e5, rel=0.1)


def test_the_study_that_records_photographs_reads() -> None:
    study = load_study(DIGITS.with_name("photographs.yaml"))
    assert isinstance(study, SweepStudy)
    assert study.scheduler.name == "none"
    assert study.trials >= 150


def test_a_regression_of_curves_answers_every_operating_point() -> None:
    trials = [
        RecordedPoints({X: x, Y: y}, [0.5 + x / 8, 4e5], [[0.4 + x / 8, 1e5], [0.5 + x / 8, 4e5]])
        for x in (-2.0, -1.0, 0.0, 1.0, 2.0)
        for y in (0.1, 0.5, 3.0)
    ]
    answer = CurveRegression(trials, STUDY)
    default, *curve = answer.points({X: 2.0, Y: 0.5})
    assert answer({X: 2.0, Y: 0.5}) == default == pytest.approx([0.75, 4e5], rel=0.1)
    assert (curve[0], curve[-1]) == (pytest.approx([0.65, 1e5], rel=0.1), pytest.approx([0.75, 4e5], rel=0.1))
