"""What any tracking service gets of a results folder: trials, their epochs, their places, files of the study."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from analysis.findings.summary import Summary
from analysis.read.configs import yaml_value
from analysis.read.results import Results
from routing.files.results_folder import (
    COMPLETE,
    FAIL,
    FIGURES_FOLDER,
    FRONT_FILE,
    HISTORY_FILE,
    POINTS_FILE,
    PRUNED,
    REPORT_FILE,
    RUNNING,
    TRIALS_FILE,
    WAITING,
)

FRONT_PICTURE = f"{FIGURES_FOLDER}/front.png"


def ended_trials(results: Results) -> pd.DataFrame:
    """Return the trials of a study's own that have finished, failed or been stopped."""
    return results.trials[results.trials["state"].isin((COMPLETE, FAIL, PRUNED)) & ~results.warm_started]


def is_over(results: Results) -> bool:
    """Return whether no trial runs or waits."""
    return not set(results.trials["state"]) & {RUNNING, WAITING}


def places(summary: Summary) -> tuple[set[int], set[int]]:
    """Return the trials that have a point on the front, and that of the knee, if there is one."""
    knee = set() if summary.knee_row is None else {int(summary.knee_row["trial"])}
    return {int(number) for number in summary.front["trial"]}, knee


def files_of_study(results: Results) -> list[Path]:
    """Return the report, the tables and the picture of the front, as far as they are written."""
    names = (REPORT_FILE, POINTS_FILE, TRIALS_FILE, FRONT_FILE, FRONT_PICTURE)
    return [results.folder / name for name in names if (results.folder / name).is_file()]


def settings(row: pd.Series, keys: set[str]) -> dict[str, str]:
    """Return the configuration of a row of trials.csv as text."""
    texts = {str(key): yaml_value(row[key]) for key in row.index if key in keys}
    return {key: text for key, text in texts.items() if text is not None}


def elapsed(history: pd.DataFrame) -> list[float]:
    """Return the share of the training after which each epoch ended; evenly spread where no seconds were kept."""
    count = len(history)
    seconds = (
        pd.to_numeric(history["train_seconds"], errors="coerce")
        if "train_seconds" in history
        else pd.Series(dtype=float)
    )
    if len(seconds) and seconds.notna().all() and seconds.iloc[-1] > 0:
        return [float(value) for value in seconds / seconds.iloc[-1]]
    return [(place + 1) / count for place in range(count)]


def numbers(row: pd.Series, without: set[str]) -> dict[str, float]:
    """Return the finite numbers of a row, configuration columns left out."""
    values = {str(key): value for key, value in row.items() if key not in without and not isinstance(value, bool)}
    numbers = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def epochs(results: Results, number: int) -> pd.DataFrame:
    """Return the epochs of a trial, empty where its history is missing or damaged."""
    try:
        history = pd.read_csv(results.trial_folder(number) / HISTORY_FILE)
    except (OSError, ValueError):
        return pd.DataFrame()
    return history if "epoch" in history else pd.DataFrame()
