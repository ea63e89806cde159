"""The tables of a results folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from optuna.trial import TrialState
from small_studies import sweep_values

from routing.files.atomic import write_text
from routing.files.record import read_metrics
from routing.files.results_folder import METRICS_FILE, MODEL_FILE, TEST_FILE, trial_folder
from routing.files.yaml_io import load_text
from search_spaces.ledger.folder import drop_models, former_studies, keep_former_study, write_study
from search_spaces.ledger.ledger import REASON, Ledger
from search_spaces.ledger.resume import replayed, settle_running
from search_spaces.ledger.tables import Collector, values_of, write_table
from search_spaces.on_ray.segment import Segments
from search_spaces.plan import blueprint
from search_spaces.study.load import load_study, parse_study

STUDY = parse_study(sweep_values())
PLAN = blueprint(STUDY)


def finished(ledger: Ledger, out: Path, accuracy: float, flops: float) -> int:
    params = {"model.router.threshold_init": accuracy, "model.router.temperature": 1.0}
    number = ledger.start(params, PLAN.space.distributions(), {"expected_flops": 2e6})
    folder = trial_folder(out, number)
    folder.mkdir(parents=True)
    point = {"knob": "threshold", "knob_value": 0.1, "is_default": True, "flops": flops, "val_accuracy": accuracy}
    metrics = {"val_accuracy": accuracy, "flops": flops, "epochs": 2, "train_seconds": 1.5}
    content = {"metrics": metrics, "points": [point, {**point, "is_default": False, "flops": flops / 2}]}
    content["certificate"] = {"state": "healthy"}
    (folder / METRICS_FILE).write_text(json.dumps(content))
    (folder / MODEL_FILE).write_text("weights")
    ledger.finish(number, TrialState.COMPLETE, [accuracy, flops], {"seconds": 2.0})
    return number


def collector(out: Path) -> Collector:
    return Collector(out, lambda labels: PLAN.configure(PLAN.space.restore(labels)), STUDY.objectives)


def test_trials_of_before_a_force_keep_what_they_ran_with(tmp_path: Path) -> None:
    """The temperature was searched, and is fixed now; the learning rate of all was another one."""
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives)
    number = finished(ledger, tmp_path, 0.9, 1e6)
    labels = {"model.router.threshold_init": 0.9, "model.router.temperature": 1.0}
    ran = PLAN.configure(labels).replace(**{"training.learning_rate": 0.05, "seed": 5})
    write_text(trial_folder(tmp_path, number) / "config.yaml", ran.to_yaml())
    space = {"model.router.threshold_init": {"float": [-2.0, 2.0]}}
    changed = parse_study(sweep_values(space=space, base={"model.router.temperature": 2.0}))
    plan = blueprint(changed)
    write_study(tmp_path, STUDY)
    keep_former_study(tmp_path)
    write_study(tmp_path, changed)
    assert [load_study(path) for path in former_studies(tmp_path)] == [STUDY]
    tables = Collector(tmp_path, lambda labels: plan.configure(plan.space.restore(labels)), changed.objectives)
    tables.write(ledger.trials())
    for name in ("trials.csv", "points.csv"):
        row = pd.read_csv(tmp_path / name).iloc[0]
        assert (row["training.learning_rate"], row["model.router.temperature"], row["seed"]) == (0.05, 1.0, 5)


def test_a_result_of_before_a_force_is_still_the_trials_own(tmp_path: Path) -> None:
    """Finished on disk when the driver died, and the study was changed before it went on."""
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives)
    labels = {"model.router.threshold_init": 0.5, "model.router.temperature": 1.0}
    ran = PLAN.configure(labels)
    other = PLAN.configure({**labels, "model.router.temperature": 2.0})
    for config in (ran, other):
        number = ledger.start(labels, PLAN.space.distributions(), {})
        folder = trial_folder(tmp_path, number)
        write_text(folder / "config.yaml", config.to_yaml())
        (folder / METRICS_FILE).write_text(json.dumps({"metrics": {"val_accuracy": 0.5, "flops": 1e6}}))
    changed = parse_study(sweep_values(base={"training.num_epochs": 9}))
    write_study(tmp_path, STUDY)
    keep_former_study(tmp_path)
    settle_running(ledger, tmp_path, changed.objectives, blueprint(changed))
    assert [trial.state.name for trial in ledger.trials()] == ["COMPLETE", "FAIL", "WAITING"]


def test_every_state_has_its_row_and_reason(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives)
    finished(ledger, tmp_path, 0.9, 1e6)
    params = {"model.router.threshold_init": 0.0, "model.router.temperature": 1.0}
    stopped = ledger.start(params, PLAN.space.distributions(), {})
    last = {"val_accuracy": 0.3, "flops": 8e5}
    attrs = {REASON: "stopped: rank 3 of 4 at epoch 1", "rung": 1, "rank": 2, "peers": 4, "epochs": 1, "last": last}
    ledger.finish(stopped, TrialState.PRUNED, None, attrs)
    failed = ledger.start(params, PLAN.space.distributions(), {})
    ledger.finish(failed, TrialState.FAIL, None, {REASON: "ValueError: no"})
    ledger.start(params, PLAN.space.distributions(), {})
    ledger.enqueue({"model.router.temperature": 2.0})
    collector(tmp_path).write(ledger.trials())
    rows = pd.read_csv(tmp_path / "trials.csv")
    assert rows["state"].tolist() == ["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]
    assert rows["reason"].fillna("").tolist()[1:3] == ["stopped: rank 3 of 4 at epoch 1", "ValueError: no"]
    assert rows["val_accuracy"].tolist()[:2] == [0.9, 0.3]
    assert rows["epochs"].tolist()[:2] == [2, 1]
    assert rows["model.router.temperature"].tolist() == [1.0, 1.0, 1.0, 1.0, 2.0]
    assert rows.loc[0, "router_state"] == "healthy"
    assert list(rows.columns[:4]) == ["number", "state", "reason", "seed"]
    points = pd.read_csv(tmp_path / "points.csv")
    assert points[["trial", "seed", "is_default", "flops"]].to_numpy().tolist() == [
        [0, 0, True, 1e6],
        [0, 0, False, 5e5],
    ]


def test_an_objective_of_the_training_is_that_of_all_its_points(tmp_path: Path) -> None:
    objectives = parse_study(
        sweep_values(
            objectives=[
                {"metric": "val_accuracy", "goal": "maximize", "reference": 0.0},
                {"metric": "train_seconds", "goal": "minimize", "reference": 60.0},
            ]
        )
    ).objectives
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives)
    number = finished(ledger, tmp_path, 0.9, 1e6)
    tables = Collector(tmp_path, lambda labels: PLAN.configure(PLAN.space.restore(labels)), objectives)
    tables.write(ledger.trials())
    assert pd.read_csv(tmp_path / "points.csv")["train_seconds"].tolist() == [1.5, 1.5]
    assert tables.front_trials() == {number}
    content = read_metrics(trial_folder(tmp_path, number))
    assert values_of(content, objectives) == [[0.9, 1.5], [0.9, 1.5]]
    del content["points"][1]["val_accuracy"]  # damaged: not that of the trial
    assert values_of(content, objectives) == [[0.9, 1.5]]


def test_a_damaged_result_is_a_failed_row_not_a_crash(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives)
    number = finished(ledger, tmp_path, 0.9, 1e6)
    (trial_folder(tmp_path, number) / METRICS_FILE).write_text("{")
    collector(tmp_path).write(ledger.trials())
    rows = pd.read_csv(tmp_path / "trials.csv")
    assert rows["state"].tolist() == ["FAIL"]
    assert "not a readable metrics file" in rows["reason"][0]


def test_points_of_the_test_split_stand_beside_those_of_validation(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives)
    number = finished(ledger, tmp_path, 0.9, 1e6)
    found = json.loads((trial_folder(tmp_path, number) / "metrics.json").read_text())["points"]
    default, other = ({key: point[key] for key in ("knob", "knob_value", "is_default")} for point in found)
    rows = [{**other, "test_accuracy": 0.7, "flops": 3.0}, {**default, "test_accuracy": 0.8, "flops": 3.0}]
    for file in (TEST_FILE, "evaluation_test.json"):  # the second is a user's, and none of a study's business
        (trial_folder(tmp_path, number) / file).write_text(json.dumps({"points": rows}))
        rows = rows[:1]
    collector(tmp_path).write(ledger.trials())
    points = pd.read_csv(tmp_path / "points.csv")
    assert points["test_accuracy"].tolist() == [0.8, 0.7]
    assert points["flops"].tolist() == [1e6, 5e5]


def test_models_off_the_front_go_when_only_the_front_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives)
    for accuracy, flops in [(0.9, 1e6), (0.8, 2e6), (0.5, 2e5)]:  # the second is dominated by the first
        finished(ledger, tmp_path, accuracy, flops)
    tables = collector(tmp_path)
    tables.write(ledger.trials())
    assert tables.front_trials() == {0, 2}
    drop_models(tmp_path, "all", set())
    assert all((trial_folder(tmp_path, n) / MODEL_FILE).exists() for n in range(3))
    drop_models(tmp_path, "front", {0, 2})
    assert [(trial_folder(tmp_path, n) / MODEL_FILE).exists() for n in range(3)] == [True, False, True]
    drop_models(tmp_path, "none", {0, 2})
    assert not any((trial_folder(tmp_path, n) / MODEL_FILE).exists() for n in range(3))


def test_no_model_goes_because_an_oracle_is_better(tmp_path: Path) -> None:
    study = parse_study(sweep_values(space={"model.router.mode": {"choice": ["top_k", "oracle"]}}))
    plan = blueprint(study)
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", study.objectives)
    for mode, accuracy in (("oracle", 0.99), ("top_k", 0.8)):
        number = ledger.start({"model.router.mode": mode}, plan.space.distributions(), {})
        point = {"knob": "", "is_default": True, "flops": 1e6, "val_accuracy": accuracy}
        folder = trial_folder(tmp_path, number)
        folder.mkdir(parents=True)
        (folder / METRICS_FILE).write_text(json.dumps({"metrics": point, "points": [point]}))
        ledger.finish(number, TrialState.COMPLETE, [accuracy, 1e6])
    tables = Collector(tmp_path, lambda labels: plan.configure(plan.space.restore(labels)), study.objectives)
    tables.write(ledger.trials())
    assert tables.front_trials() == {1}
    _, _, ended = replayed(ledger, study, plan, tmp_path)
    assert ended == [[], [("attention_routing/top_k", [0.8, 1e6])]]  # best, hypervolume and plateau of a resumed sweep
    found = Segments._points(SimpleNamespace(plan=plan, ledger=ledger, study=study), 0, {"points": [point]})
    assert found == []  # and of one that runs
    found = Segments._points(SimpleNamespace(plan=plan, ledger=ledger, study=study), 1, {"points": [point]})
    assert found == [[0.8, 1e6]]


def test_tables_take_the_union_of_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [{"a": 1}, {"b": 2, "c": "x,y"}], first=("c", "missing"))
    assert (tmp_path / "t.csv").read_text() == 'c,a,b\n,1,\n"x,y",,2\n'
    write_table(tmp_path / "t.csv", [], first=("a", "b"))
    assert (tmp_path / "t.csv").read_text() == "a,b\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "t.csv"]
    write_table(tmp_path / "t.csv", [{"a": [1, None], "b": [{"losses": None, "name": "x"}], "c": ["é"], "d": None}])
    (row,) = csv.DictReader((tmp_path / "t.csv").open())
    assert {key: load_text(cell)[0] for key, cell in row.items() if cell} == {
        "a": [1, None], "b": [{"losses": None, "name": "x"}], "c": ["é"],
    }  # fmt: skip
