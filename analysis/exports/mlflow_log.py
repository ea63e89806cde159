"""A results folder as MLflow runs (extra ``mlflow``): one per trial, its epochs as steps, and one of the study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.exports.logged import (
    elapsed,
    ended_trials,
    epochs,
    files_of_study,
    is_over,
    numbers,
    places,
    settings,
)
from analysis.findings.summary import Summary, summarise
from analysis.read.configs import config_keys
from analysis.read.results import Results, read_results
from analysis.read.times import Span, trial_times
from routing.errors import InputError, RoutingError
from routing.files.results_folder import COMPLETE, CONFIG_FILE, FAIL, PRUNED

BATCH = 100  # parameters and tags a tracking server takes at once
STATUS = {COMPLETE: "FINISHED", FAIL: "FAILED", PRUNED: "KILLED"}
TRIAL, STUDY, KIND = "routing.trial", "routing.study_folder", "routing.kind"
FRONT, KNEE = "routing.on_front", "routing.is_knee"


def log_to_mlflow(folder: str | Path, uri: str) -> int:
    """Log every ended trial of a results folder that MLflow does not have yet; return how many were logged.

    The experiment is named after the study; a run has the trial's start and end, the configuration as parameters, the
    metrics, the history with the epoch as step, config.yaml as an artifact, and as tags its state, its reason, and
    whether it is on the front and the knee. A further run stands for the study: hypervolume, report, tables, front.
    Called again while a sweep runs, it adds what is new and corrects the tags.

    Args:
        folder: a results folder.
        uri: tracking address: ``file:mlruns``, ``sqlite:///runs.db``, ``http://...``.

    Raises:
        InputError: not a results folder, or MLflow is not installed.
        RoutingError: MLflow refused the address.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise InputError("--mlflow needs MLflow: pip install 'routing-sweeps[mlflow]'") from None
    results = read_results(folder)
    if "://" not in uri:  # MLflow enables its file store only on request; a path is such a request
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        return _log(results, MlflowClient(tracking_uri=uri))
    except (MlflowException, OSError) as error:
        raise RoutingError(f"MLflow at {uri}: {str(error).splitlines()[0]}") from None


def _log(results: Results, client: Any) -> int:
    experiment = client.get_experiment_by_name(results.name)
    number = experiment.experiment_id if experiment is not None else client.create_experiment(results.name)
    known = _known(client, number, results)
    ended = ended_trials(results)
    new = ended[~ended["number"].isin(known)]
    times = trial_times(results) if len(new) else {}
    for _, row in new.iterrows():
        known[int(row["number"])] = _log_trial(client, number, results, row, times.get(int(row["number"])))
    summary = summarise(results)
    _tag_front(client, known, summary)
    _log_study(client, number, summary)
    return len(new)


def _tag_front(client: Any, runs: dict[int, Any], summary: Summary) -> None:
    """Say of every trial whether it has a point on the front, and the knee; only what has changed is written."""
    found = dict(zip((FRONT, KNEE), places(summary), strict=True))
    for number, run in runs.items():
        for tag, numbers_there in found.items():
            value = str(number in numbers_there).lower()
            if run.data.tags.get(tag) != value:
                client.set_tag(run.info.run_id, tag, value)


def _log_study(client: Any, experiment: str, summary: Summary) -> None:
    """Log the study as a run of its own, or bring that run up to date."""
    results = summary.results
    found = client.search_runs([experiment], filter_string=f"{_own(results)} and tags.`{KIND}` = 'study'")
    tags = {KIND: "study", STUDY: _address(results)}
    run = found[0] if found else client.create_run(experiment, run_name=f"{results.name} (study)", tags=tags)
    client.log_metric(run.info.run_id, "hypervolume", summary.hypervolume, step=len(results.trials))
    for path in files_of_study(results):
        client.log_artifact(run.info.run_id, str(path))
    if is_over(results):
        client.set_terminated(run.info.run_id)


def _own(results: Results) -> str:
    return f"tags.`{STUDY}` = '{_address(results)}'"


def _known(client: Any, experiment: str, results: Results) -> dict[int, Any]:
    """Return the runs of the trials of this folder that MLflow has already."""
    found: dict[int, Any] = {}
    token = None
    while True:
        page = client.search_runs([experiment], filter_string=_own(results), page_token=token)
        found |= {int(run.data.tags[TRIAL]): run for run in page if TRIAL in run.data.tags}
        token = page.token
        if not token:
            return found


def _address(results: Results) -> str:
    return str(results.folder.resolve()).replace("'", "")


def _log_trial(client: Any, experiment: str, results: Results, row: pd.Series, span: Span | None) -> Any:
    """Log one trial and return its run; without a span it lies at the present moment."""
    from mlflow.entities import Metric, Param, RunTag

    number = int(row["number"])
    start, end = (None, None) if span is None else (int(1000 * moment) for moment in span)
    run = client.create_run(experiment, run_name=f"{results.name}-{number}", start_time=start)
    run_id = run.info.run_id
    keys = set(config_keys(results.trials))
    params = [Param(key, text) for key, text in settings(row, keys).items()]
    tags = [RunTag(TRIAL, str(number)), RunTag(STUDY, _address(results)), RunTag("routing.state", str(row["state"]))]
    tags += [RunTag("routing.reason", row["reason"])] if isinstance(row["reason"], str) and row["reason"] else []
    last = run.info.start_time if end is None else end
    metrics = [Metric(name, value, last, 0) for name, value in numbers(row, keys | {"number"}).items()]
    history = epochs(results, number)
    shares = elapsed(history)
    metrics += [
        Metric(
            f"epoch/{name}", value, int(run.info.start_time + share * (last - run.info.start_time)), int(epoch["epoch"])
        )
        for share, (_, epoch) in zip(shares, history.iterrows(), strict=True)
        for name, value in numbers(epoch, {"epoch"}).items()
    ]
    for start in range(0, len(params), BATCH):
        client.log_batch(run_id, params=params[start : start + BATCH])
    for start in range(0, len(metrics), 10 * BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + 10 * BATCH])
    config = results.trial_folder(number) / CONFIG_FILE
    if config.is_file():
        client.log_artifact(run_id, str(config))
    client.log_batch(run_id, tags=tags)  # last: a run without them was interrupted and is logged again
    client.set_terminated(run_id, status=STATUS[str(row["state"])], end_time=end)
    return run
