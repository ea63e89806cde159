"""A results folder as MLflow runs (extra ``mlflow``): one run per trial, its epochs as steps."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.read.configs import config_keys, yaml_value
from analysis.read.results import Results, read_results
from routing.errors import InputError, RoutingError
from routing.files.results_folder import COMPLETE, CONFIG_FILE, FAIL, HISTORY_FILE, PRUNED

BATCH = 100  # parameters and tags a tracking server takes at once
STATUS = {COMPLETE: "FINISHED", FAIL: "FAILED", PRUNED: "KILLED"}
TRIAL, STUDY = "routing.trial", "routing.study_folder"


def log_to_mlflow(folder: str | Path, uri: str) -> int:
    """Log every ended trial of a results folder that MLflow does not have yet; return how many were logged.

    The experiment is named after the study; a run has the configuration as parameters, the metrics, the history with
    the epoch as step, config.yaml as an artifact, and state and reason as tags.

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
    ended = results.trials[results.trials["state"].isin(STATUS) & ~results.warm_started]
    new = ended[~ended["number"].isin(known)]
    for _, row in new.iterrows():
        _log_trial(client, number, results, row)
    return len(new)


def _known(client: Any, experiment: str, results: Results) -> set[int]:
    """Return the trials of this folder that MLflow has already."""
    own = f"tags.`{STUDY}` = '{_address(results)}'"
    found: set[int] = set()
    token = None
    while True:
        page = client.search_runs([experiment], filter_string=own, page_token=token)
        found |= {int(run.data.tags[TRIAL]) for run in page if TRIAL in run.data.tags}
        token = page.token
        if not token:
            return found


def _address(results: Results) -> str:
    return str(results.folder.resolve()).replace("'", "")


def _log_trial(client: Any, experiment: str, results: Results, row: pd.Series) -> None:
    from mlflow.entities import Metric, Param, RunTag

    number = int(row["number"])
    run = client.create_run(experiment, run_name=f"{results.name}-{number}")
    run_id = run.info.run_id
    keys = set(config_keys(results.trials))
    texts = {key: yaml_value(row[key]) for key in row.index if key in keys}
    params = [Param(key, text) for key, text in texts.items() if text is not None]
    tags = [RunTag(TRIAL, str(number)), RunTag(STUDY, _address(results)), RunTag("routing.state", str(row["state"]))]
    tags += [RunTag("routing.reason", row["reason"])] if isinstance(row["reason"], str) and row["reason"] else []
    now = run.info.start_time
    metrics = [Metric(name, value, now, 0) for name, value in _numbers(row, keys | {"number"}).items()]
    metrics += [
        Metric(f"epoch/{name}", value, now, int(epoch["epoch"]))
        for _, epoch in _history(results, number).iterrows()
        for name, value in _numbers(epoch, {"epoch"}).items()
    ]
    for start in range(0, len(params), BATCH):
        client.log_batch(run_id, params=params[start : start + BATCH])
    for start in range(0, len(metrics), 10 * BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + 10 * BATCH])
    config = results.trial_folder(number) / CONFIG_FILE
    if config.is_file():
        client.log_artifact(run_id, str(config))
    client.log_batch(run_id, tags=tags)  # last: a run without them was interrupted and is logged again
    client.set_terminated(run_id, status=STATUS[str(row["state"])])


def _numbers(row: pd.Series, without: set[str]) -> dict[str, float]:
    """Return the finite numbers of a row, configuration columns left out."""
    values = {str(key): value for key, value in row.items() if key not in without and not isinstance(value, bool)}
    numbers = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _history(results: Results, number: int) -> pd.DataFrame:
    """Return the epochs of a trial, empty where its history is missing or damaged."""
    try:
        history = pd.read_csv(results.trial_folder(number) / HISTORY_FILE)
    except (OSError, ValueError):
        return pd.DataFrame()
    return history if "epoch" in history else pd.DataFrame()
