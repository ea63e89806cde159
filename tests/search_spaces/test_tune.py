"""Real sweeps on Ray with runs that train nothing: resume after kills, faults, signals, stops, extension."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from filelock import FileLock
from small_studies import ablation_values, sweep_values

from routing.errors import InputError, RoutingError
from routing.files.results_folder import LOCK_FILE
from routing.files.yaml_io import dump
from search_spaces import enqueue, sweep
from search_spaces.ledger.ledger import Ledger
from search_spaces.on_ray.session import machine_cpus
from search_spaces.study.load import parse_study

SCRIPT = """
import sys, json
from routing.errors import RoutingError
from search_spaces import sweep
from search_spaces.study.load import parse_study
try:
    sweep(parse_study(json.loads(sys.argv[1])), sys.argv[2], run=sys.argv[3], concurrency=2, resume=True)
except RoutingError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def start(values: dict[str, Any], out: Path, run: str) -> subprocess.Popen[str]:
    """Start a driver in a process of its own, which heeds a hang-up even where the tests were started by ``nohup``."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    command = [sys.executable, "-c", SCRIPT, json.dumps(values), str(out), run]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def child_of(parent: int, name: str) -> int:
    """Return the process of this name that another one has started."""
    children = " ".join(path.read_text() for path in Path(f"/proc/{parent}/task").glob("*/children")).split()
    [found] = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == name]
    return found


def table(out: Path, name: str = "trials") -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.csv")


def states(out: Path) -> list[str]:
    study = parse_study(sweep_values())
    ledger = Ledger(str(out / "ledger.journal"), study.name, study.objectives, must_exist=True)
    return [trial.state.name for trial in ledger.trials()]


def test_bad_input_writes_nothing(tmp_path: Path) -> None:
    study = parse_study(sweep_values())
    out = tmp_path / "out"
    for arguments, message in [
        ({"concurrency": 10_000}, rf"concurrency 10000 needs 10000 CPUs; this machine has {machine_cpus()} CPUs"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"time_budget": "soon"}, "time_budget: a duration is written"),
        ({"warm_start": [tmp_path / "none"]}, "is no results folder"),
    ]:
        with pytest.raises(InputError, match=message):
            sweep(study, out, **arguments)
        assert not out.exists()
    hungry = parse_study(sweep_values(resources={"cpu": 4_000}))
    with pytest.raises(InputError, match="a trial needs 4000 CPUs"):
        sweep(hungry, out)
    assert not out.exists()


def test_data_that_are_not_there_are_said_before_anything_runs(tmp_path: Path) -> None:
    missing = {"dataset.name": "cifar10", "dataset.root": str(tmp_path)}
    root = {"value": str(tmp_path), "when": {"dataset.name": "cifar10"}}
    for values in (
        sweep_values(base=missing),
        sweep_values(space={"dataset.name": ["digits", "cifar10"], "dataset.root": root}),
        ablation_values(base={}, factors={"data": {"photographs": missing}}),
    ):
        with pytest.raises(InputError, match=r"no file cifar-10-batches-py/data_batch_1; put CIFAR10 there, or let it"):
            sweep(parse_study(values), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_refused_warm_start_or_cluster_does_not_block_the_corrected_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out, other = parse_study(sweep_values()), tmp_path / "out", tmp_path / "other"
    other.mkdir()
    (other / "study.yaml").write_text(dump(sweep_values(objectives=sweep_values()["objectives"][:1])))
    with pytest.raises(InputError, match="has other objectives than val_accuracy, flops"):
        sweep(study, out, warm_start=[other])
    assert not out.exists()

    def refused(*_: Any) -> None:
        raise InputError("no Ray cluster answers at auto")

    monkeypatch.setattr("search_spaces.driver.session", refused)
    with pytest.raises(InputError, match="no Ray cluster answers"):
        sweep(study, out)
    assert {path.name for path in out.iterdir()} <= {LOCK_FILE}


def test_a_folder_that_holds_a_sweep_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("kind: sweep\nname: other\n")
    with pytest.raises(InputError, match="holds a sweep already; go on with --resume"):
        sweep(parse_study(sweep_values()), tmp_path)
    with pytest.raises(InputError, match="holds the sweep 'other', not the sweep 'small'"):
        sweep(parse_study(sweep_values()), tmp_path, resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study.yaml"]


def test_a_second_driver_is_refused_and_a_dead_ones_lock_is_not(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("process 1234 on elsewhere\n")
    with FileLock(tmp_path / LOCK_FILE):
        with pytest.raises(InputError, match="in use by another sweep"):
            sweep(parse_study(sweep_values()), tmp_path, resume=True)
    (tmp_path / "study.yaml").write_text("kind: sweep\nname: other\n")
    with pytest.raises(InputError, match="holds the sweep 'other'"):  # past the lock
        sweep(parse_study(sweep_values()), tmp_path, resume=True)


@pytest.mark.slow
def test_sweep_then_extend(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = parse_study(sweep_values())
    out = sweep(study, tmp_path / "out", run="fake_runs:trivial", concurrency=2)
    first = table(out)
    assert first["state"].tolist() == ["COMPLETE"] * 4
    assert first["number"].tolist() == [0, 1, 2, 3]
    assert (out / "trials" / "3" / "metrics.json").exists()
    assert table(out, "points")["trial"].tolist() == [0, 1, 2, 3]
    assert {p.name for p in out.iterdir()} == {
        "study.yaml", "environment.json", "ledger.journal", "trials", "trials.csv", "points.csv",
    }  # fmt: skip
    captured = capfd.readouterr()
    assert "[4/4] trial" in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    sweep(study, out, trials=6, resume=True, run="fake_runs:trivial", concurrency=2)
    longer = table(out)
    assert longer["state"].tolist() == ["COMPLETE"] * 6
    columns = ["model.router.threshold_init", "model.router.temperature", "val_accuracy"]
    assert longer[columns][:4].equals(first[columns])
    assert not ray.is_initialized()


@pytest.mark.slow
def test_trials_get_the_processes_that_ray_starts_beforehand(tmp_path: Path) -> None:
    values = sweep_values(trials=2)
    driver = start(values, tmp_path / "out", "fake_runs:dated")
    text, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, text
    study = parse_study(values)
    ledger = Ledger(str(tmp_path / "out" / "ledger.journal"), study.name, study.objectives, must_exist=True)
    for trial in ledger.trials():
        assert trial.datetime_start is not None
        born = float((tmp_path / "out" / "trials" / str(trial.number) / "born").read_text())
        assert born < trial.datetime_start.timestamp()


@pytest.mark.slow
@pytest.mark.usefixtures("standing_ray")
def test_kill_9_at_ten_moments_loses_and_repeats_nothing(tmp_path: Path) -> None:
    values = sweep_values(trials=12)
    whole = sweep(parse_study(values), tmp_path / "whole", run="fake_runs:logged", concurrency=2)
    out = tmp_path / "killed"
    for finished_before_kill in [0, 0, 1, 2, 3, 5, 6, 8, 9, 11]:
        driver = start(values, out, "fake_runs:logged")
        deadline = time.monotonic() + 60
        ledger = out / "ledger.journal"
        while time.monotonic() < deadline and driver.poll() is None:
            done = ledger.read_text().count('"datetime_complete"') if ledger.exists() else 0
            if done >= finished_before_kill and ledger.exists():
                break
            time.sleep(0.02)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    driver = start(values, out, "fake_runs:logged")
    text, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, text
    assert "RUNNING" not in states(out)
    assert "WAITING" not in states(out)
    complete = table(out).query("state == 'COMPLETE'")
    assert len(complete) == 12
    runs = (out / "runs.log").read_text().splitlines()
    assert len(runs) == len(set(runs)), "an epoch was trained twice"
    keys = ["model.router.threshold_init", "model.router.temperature"]
    drop = {"trial", "seed"}
    expected = table(whole, "points").drop(columns=list(drop)).sort_values(keys, ignore_index=True)
    found = table(out, "points").drop(columns=list(drop)).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("standing_ray")
def test_every_fault_is_a_row_with_its_reason_and_the_sweep_goes_on(tmp_path: Path) -> None:
    values = sweep_values(
        base={"training.num_epochs": 5, "dataset": {"num_train": 100}},
        space={"seed": {"choice": list(range(7))}, "model.router.threshold_init": {"float": [-2, 2]}},
        enqueue=[{"seed": seed} for seed in (1, 2, 3, 4, 5, 0, 6)],
        trials=7,
        trial_timeout="8s",
    )
    out = sweep(parse_study(values), tmp_path / "out", run="fake_runs:troubled", concurrency=2)
    rows = table(out).set_index("seed")
    assert rows["reason"].fillna("").to_dict() == {
        0: "",
        1: "ValueError: no luck with this one",
        2: "loss is nan in epoch 2",
        3: "no usable result: val_accuracy is None",
        4: "",
        5: "timeout: it took longer than 8 s",
        6: "",
    }
    assert rows.query("state == 'COMPLETE'").index.tolist() == [4, 0, 6]
    # the worker was lost four times, each time an epoch further
    assert len(list((out / "trials" / str(rows.loc[6, "number"])).glob("died*"))) == 4
    assert "no luck" in (out / "trials" / str(rows.loc[1, "number"]) / "error.txt").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("standing_ray")
def test_failures_alike_stop_the_sweep_and_are_tried_again(tmp_path: Path) -> None:
    space = {"seed": {"choice": [1]}, "model.router.threshold_init": {"float": [-2, 2]}}
    study, out = parse_study(sweep_values(space=space, trials=8)), tmp_path / "out"
    expected = (
        "3 trials in a row failed alike: ValueError: no luck with this one; mend it, then go on with --resume "
        r"--retry-failed \(or with --keep-going all the same\)"
    )
    with pytest.raises(RoutingError, match=expected):
        sweep(study, out, run="fake_runs:troubled", concurrency=2)
    assert 3 <= states(out).count("FAIL") <= 5
    sweep(study, out, run="fake_runs:trivial", concurrency=2, resume=True, retry_failed=True)
    rows = table(out)
    assert rows["state"].value_counts()["COMPLETE"] == 8
    assert rows.query("state == 'COMPLETE'")["model.router.threshold_init"].nunique() == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), ("raylet", 1)]
)
def test_a_signal_or_a_dead_ray_stops_cleanly_and_says_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: int | str, code: int
) -> None:
    values = sweep_values(trials=50, base={"training.num_epochs": 20})
    monkeypatch.setenv("HOME", "/proc/no-home")  # nothing can be written there, not even by root
    driver = start(values, tmp_path / "out", "fake_runs:sleepy")
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "trials").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    asked = time.monotonic()
    if isinstance(what, int):
        driver.send_signal(what)
    else:
        os.kill(child_of(driver.pid, what), signal.SIGKILL)
    text, _ = driver.communicate(timeout=90)
    assert time.monotonic() - asked < 10
    assert driver.returncode == code, text
    assert "go on with --resume" in text
    assert "Traceback" not in text
    if isinstance(what, int):
        assert set(states(tmp_path / "out")) == {"FAIL", "WAITING"}
        assert not (tmp_path / "out" / LOCK_FILE).exists()
    else:
        assert "Ray has died (raylet); the ends of its logs are in" in text
        assert len(text.splitlines()) < 10
        assert "state-dump" in (tmp_path / "out" / "ray.log").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("standing_ray")
def test_stopped_trials_are_pruned_with_rung_and_rank(tmp_path: Path) -> None:
    values = sweep_values(trials=16, base={"training.num_epochs": 9}, scheduler={"name": "similar_cost"})
    out = sweep(parse_study(values), tmp_path / "out", run="fake_runs:trivial", concurrency=2)
    rows = table(out)
    pruned = rows.query("state == 'PRUNED'")
    assert 3 <= len(pruned) < 16
    assert set(pruned["rung"]) <= {1, 3}
    assert (pruned["rank"] >= 1).all()
    assert pruned["reason"].str.match(r"stopped: rank \d+ of \d+ at epoch [13]").all()
    assert (pruned["epochs"] == pruned["rung"]).all()
    assert rows.loc[rows["model.router.threshold_init"].idxmax(), "state"] == "COMPLETE"


@pytest.mark.slow
@pytest.mark.usefixtures("standing_ray")
def test_time_budget_constraint_and_ablation(tmp_path: Path) -> None:
    begun = time.monotonic()
    out = sweep(
        parse_study(sweep_values(trials=500, base={"training.num_epochs": 2})),
        tmp_path / "budget",
        run="fake_runs:sleepy",
        concurrency=2,
        time_budget="8s",
    )
    assert time.monotonic() - begun < 90
    assert 0 < len(table(out).query("state == 'COMPLETE'")) < 60
    assert "RUNNING" not in states(out)
    ablation = parse_study(ablation_values())
    out = sweep(ablation, tmp_path / "ablation", run="fake_runs:trivial", concurrency=2, trials=2)
    assert table(out)["arm"].tolist() == ["baseline", "mode=random"]
    with pytest.raises(InputError, match=r"this ablation has 10 trials, .*; 11 are too many"):
        sweep(ablation, out, resume=True, trials=11)
    sweep(ablation, out, run="fake_runs:trivial", concurrency=2, resume=True)
    rows = table(out)
    arms = ["baseline", "mode=random", "mode=top_k", "dataset.patch_grid_size=4", "dataset.patch_grid_size=8"]
    assert rows["arm"].tolist() == arms * 2
    assert rows["seed"].tolist() == [0] * 5 + [1] * 5
    assert rows["dataset.patch_grid_size"].tolist() == [5, 5, 5, 4, 8] * 2
    assert table(out, "points")["arm"].tolist() == arms * 2


@pytest.mark.slow
@pytest.mark.usefixtures("standing_ray")
def test_a_full_disk_stops_the_sweep_and_resume_goes_on(tmp_path: Path) -> None:
    study = parse_study(sweep_values())
    with pytest.raises(RoutingError, match="the disk is full; make room, then go on with --resume"):
        sweep(study, tmp_path / "out", run="fake_runs:out_of_room", concurrency=2)
    assert set(states(tmp_path / "out")) == {"FAIL", "WAITING"}
    sweep(study, tmp_path / "out", run="fake_runs:trivial", concurrency=2, resume=True)
    assert table(tmp_path / "out")["state"].value_counts()["COMPLETE"] == 4


@pytest.mark.slow
@pytest.mark.usefixtures("standing_ray")
def test_constraints_are_refused_before_training(tmp_path: Path) -> None:
    values = sweep_values(
        space={"dataset.patch_grid_size": [4, 5, 8], "seed": {"int": [0, 99]}},
        base={"model.name": "full_compute", "training.num_epochs": 1},
        constraints=["flops <= 2.0e6"],
        enqueue=[{"dataset.patch_grid_size": 8}],
        trials=6,
    )
    out = sweep(parse_study(values), tmp_path / "out", run="fake_runs:constant", concurrency=2)
    rows = table(out)
    assert rows["state"].tolist() == ["PRUNED"] + ["COMPLETE"] * 5
    assert rows["reason"][0].startswith("refused: flops <= 2.0e6 does not hold: expected 3.4")
    assert set(rows["dataset.patch_grid_size"][1:]) <= {4, 5}


@pytest.mark.slow
@pytest.mark.usefixtures("standing_ray")
def test_a_sweep_that_gains_nothing_ends_and_points_beyond_a_limit_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = sweep_values(
        stop={"hypervolume_gain": 0.5, "over": 3},
        constraints=["val_accuracy >= 0.3"],
        enqueue=[{"model.router.threshold_init": 2.0}, {"model.router.threshold_init": -2.0}],
        trials=30,
    )
    out = sweep(parse_study(values), tmp_path / "out", run="fake_runs:trivial", concurrency=1)
    rows, points = table(out), pd.read_csv(out / "points.csv")
    assert len(rows) < 12
    assert "grew by no more than 0.5 of itself over 3 trials" in capsys.readouterr().err
    assert rows["reason"][1] == "violates val_accuracy >= 0.3"
    broken = points["val_accuracy"] < 0.3
    assert set(points.loc[broken, "violates"]) == {"val_accuracy >= 0.3"}
    assert points.loc[~broken, "violates"].isna().all()
    enqueue(out, ["model.router.threshold_init=1.75"])  # what a person asks for is run all the same
    again = table(sweep(parse_study(values), out, run="fake_runs:trivial", concurrency=1, resume=True))
    assert len(again) == len(rows) + 1
    assert again["state"].iloc[-1] == "COMPLETE"
    assert again["model.router.threshold_init"].iloc[-1] == 1.75
