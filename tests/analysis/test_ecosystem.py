"""Other programs read what is written: pandas, MLflow, optuna-dashboard's storage."""

from __future__ import annotations

import http.client
import json
import threading
import time
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import pandas as pd
import pytest

from analysis.exports.mlflow_log import log_to_mlflow
from analysis.findings.summary import summarise
from analysis.read.results import read_results
from analysis.report import analyze
from routing.cli import main
from routing.errors import InputError, RoutingError


def test_pandas_reads_a_results_folder_in_one_line(make_results):
    folder = make_results()
    assert len(pd.read_csv(folder / "points.csv").query("flops < 4e5")) > 10


@pytest.fixture
def store(tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    return f"file:{tmp_path / 'mlruns'}"


def test_the_command_that_analyzes_also_logs(make_results, store, capsys, only_the_front):
    folder = make_results(trials=7)
    assert main(["analyze", str(folder), "--mlflow", store]) == 0
    assert f"logged 9 trials of {folder} to {store}" in capsys.readouterr().out


def test_mlflow_gets_every_ended_trial_once(make_results, store):
    from mlflow.tracking import MlflowClient

    folder = make_results(trials=7)
    assert log_to_mlflow(folder, store) == 9
    assert log_to_mlflow(folder, store) == 0
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("synthetic")
    found = client.search_runs([experiment.experiment_id])
    runs = {int(run.data.tags["routing.trial"]): run for run in found if "routing.trial" in run.data.tags}
    assert runs[3].data.params["model.name"] == "attention_routing"
    assert runs[3].info.status == "FINISHED"
    assert runs[7].info.status == "KILLED"
    assert runs[8].data.tags["routing.reason"] == "loss is nan in epoch 2"
    trials = pd.read_csv(folder / "trials.csv").set_index("number")
    assert runs[3].data.metrics["val_accuracy"] == trials.loc[3, "val_accuracy"]
    steps = client.get_metric_history(runs[3].info.run_id, "epoch/train_loss")
    assert sorted((m.step, m.value) for m in steps) == [(1, 2.0), (2, 1.0), (3, 2 / 3), (4, 0.5)]
    assert [file.path for file in client.list_artifacts(runs[3].info.run_id)] == ["config.yaml"]


def test_a_run_in_mlflow_lasts_as_long_as_its_trial_and_says_whether_it_is_on_the_front(make_results, store):
    from mlflow.tracking import MlflowClient

    folder = make_results(trials=7, unfinished=False)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "ledger.journal")))
    study = optuna.create_study(storage=storage, study_name="synthetic", directions=["maximize", "minimize"])
    for _ in range(3):
        trial = study.ask()
        time.sleep(0.2)
        study.tell(trial, [0.5, 3e5])
    for number, seconds in ((5, 1.5),):  # not in the ledger: its files say when it ended
        trials = pd.read_csv(folder / "trials.csv")
        trials.loc[trials["number"] == number, "seconds"] = seconds
        trials.to_csv(folder / "trials.csv", index=False)
    analyze(folder, refresh=1)
    log_to_mlflow(folder, store)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("synthetic").experiment_id
    runs = client.search_runs([experiment])
    trials = {int(run.data.tags["routing.trial"]): run for run in runs if "routing.trial" in run.data.tags}
    for number, trial in enumerate(study.trials):
        info = trials[number].info
        assert info.start_time == int(1000 * trial.datetime_start.timestamp())
        assert info.end_time - info.start_time == pytest.approx(1000 * trial.duration.total_seconds(), abs=2)
    assert trials[5].info.end_time - trials[5].info.start_time == pytest.approx(1500, abs=2)
    moments = [m.timestamp for m in client.get_metric_history(trials[0].info.run_id, "epoch/train_loss")]
    assert trials[0].info.start_time < min(moments)
    assert max(moments) == trials[0].info.end_time
    front = summarise(read_results(folder)).front
    assert {n for n, run in trials.items() if run.data.tags["routing.on_front"] == "true"} == set(front["trial"])
    (whole,) = (run for run in runs if run.data.tags.get("routing.kind") == "study")
    assert {file.path for file in client.list_artifacts(whole.info.run_id)} >= {
        "report.html",
        "points.csv",
        "front.png",
    }
    assert whole.data.metrics["hypervolume"] == pytest.approx(summarise(read_results(folder)).hypervolume)
    assert log_to_mlflow(folder, store) == 0
    assert len(client.search_runs([experiment])) == len(runs)


def test_mlflow_gets_no_trial_of_another_study(make_results, store):
    folder = make_results(trials=1, unfinished=False)
    trials = pd.read_csv(folder / "trials.csv")
    taken = trials.assign(number=1, reason="warm start: other")
    pd.concat([trials, taken]).to_csv(folder / "trials.csv", index=False)
    assert log_to_mlflow(folder, store) == 1


def test_mlflow_address_that_is_none(make_results, store):
    with pytest.raises(RoutingError, match="MLflow at nonsense://x"):
        log_to_mlflow(make_results(trials=1), "nonsense://x")


def test_mlflow_needs_a_results_folder(tmp_path, store):
    with pytest.raises(InputError, match="no such results folder"):
        log_to_mlflow(tmp_path / "nowhere", store)


class Silent(WSGIRequestHandler):
    def log_message(self, *args):
        """A test prints no access log."""


def test_optuna_dashboard_serves_a_ledger(tmp_path):
    """The ledger is Optuna's own journal storage: ``optuna-dashboard RESULTS/ledger.journal`` opens it."""
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "ledger.journal"))
    )
    study = optuna.create_study(storage=storage, study_name="digits", directions=["maximize", "minimize"])
    study.add_trial(optuna.trial.create_trial(values=[0.9, 3e5]))
    server = make_server("127.0.0.1", 0, dashboard.wsgi(storage), handler_class=Silent)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request("GET", "/api/studies")
    response = connection.getresponse()
    content = response.read()
    connection.close()
    thread.join()
    server.server_close()
    assert response.status == 200, content
    (found,) = json.loads(content)["study_summaries"]
    assert found["study_name"] == "digits"
    assert found["directions"] == ["maximize", "minimize"]
