"""What a page shows of trials: their configuration and files, the columns of their table, their learning curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.findings.summary import Summary
from analysis.page.columns import dictionary, has_numbers, numbers
from analysis.read.configs import config_keys, varied_keys
from analysis.read.results import Results
from analysis.words.words import axis_label, scale, state_in_words
from routing.errors import InputError
from routing.files.record import read_history
from routing.files.results_folder import (
    CONFIG_FILE,
    ERROR_FILE,
    HISTORY_FILE,
    LOG_FILE,
    METRICS_FILE,
    MODEL_FILE,
)
from routing.quantities import find, ordered, split_of

LINKED = (CONFIG_FILE, METRICS_FILE, HISTORY_FILE, LOG_FILE, ERROR_FILE, MODEL_FILE)
MAX_CURVES = 300
"""Learning curves beyond which evenly chosen ones are shown, beside those of the front."""


def trials_of(results: Sequence[Results], homes: Sequence[str]) -> dict[str, Any]:
    """Return number, state, configuration and files of the trials of one results folder or several.

    Args:
        homes: of each folder, where the page finds the folders of its trials.
    """
    trials = pd.concat([one.trials for one in results], ignore_index=True)
    files = [_files(one.trial_folder(int(number))) for one in results for number in one.trials["number"]]
    places = [home for one, home in zip(results, homes, strict=True) for _ in range(len(one.trials))]
    return {
        "number": trials["number"].tolist(),
        "state": dictionary(trials["state"].map(state_in_words), plain=True),
        "reason": dictionary(trials["reason"], plain=True),
        "keys": {key: dictionary(trials[key]) for key in config_keys(trials)},
        "varied": varied_keys(trials),
        "home": dictionary(pd.Series(places, dtype=object), plain=True),
        "files": dictionary(pd.Series(files, dtype=object), plain=True),
    }


def _files(folder: Path) -> str | None:
    """Return the names of a trial's files that the page links, None where there is no folder."""
    try:
        there = {entry.name for entry in os.scandir(folder)}
    except OSError:
        return None
    return " ".join(name for name in LINKED if name in there) or None


def trial_table(results: Results) -> list[dict[str, Any]]:
    """Return the columns of the trial table: a numeric one as numbers, another as text."""
    trials = results.trials.assign(state=results.trials["state"].map(state_in_words))
    wanted = ["number", "state", "model.name", "model.router.mode"]
    wanted += [objective.metric for objective in results.objectives]
    measured = [name for name in ordered(map(str, trials.columns)) if has_numbers(trials[name])]
    wanted += ["arm", "router_state", *measured, *varied_keys(trials), "seed", "reason"]
    columns = []
    for name in dict.fromkeys(wanted):
        if name not in trials or (trials[name].isna().all() and name != "reason"):
            continue
        values = pd.to_numeric(trials[name], errors="coerce")
        numeric = bool(values.notna().sum() == trials[name].notna().sum() and values.notna().any())
        label = "trial" if name == "number" else axis_label(name) if "." not in name else name
        known = find(name)
        digits = "text" if "." in name or name in ("number", "seed") else ".4g" if known is None else known.digits
        column: dict[str, Any] = {"name": name, "label": label, "numeric": numeric, "scale": scale(name)}
        column["digits"] = "count" if known is not None and known.is_count else digits
        plain = name in ("state", "reason", "router_state", "arm")
        columns.append(column | {"cells": numbers(values) if numeric else dictionary(trials[name], plain)})
    return columns


def curves(summary: Summary, series: Mapping[Any, str]) -> dict[str, Any] | None:
    """Return the learning curves of the trials, those of the front always; None where no history holds two epochs.

    Args:
        series: trial number -> name of its series.
    """
    results = summary.results
    chosen = _chosen(results.trials["number"].tolist(), set(summary.front["trial"]))
    histories = {number: _history(results, number) for number in chosen}
    histories = {number: found for number, found in histories.items() if len(found) > 1}
    if not histories:
        return None
    columns = {str(name) for found in histories.values() for name in found}
    shown = [name for name in ordered(columns) if split_of(name) in ("val", "test") or name == "routing_ratio"]
    shown += [name for name in ("train_loss",) if name in columns]
    task = results.objectives[0].metric
    shown.sort(key=lambda name: name != task)
    on_front = set(summary.front["trial"])
    return {
        "metrics": [{"name": name, "label": axis_label(name), "scale": scale(name)} for name in shown],
        "trials": [
            {
                "trial": number,
                "series": series.get(number, ""),
                "front": number in on_front,
                "epoch": numbers(found["epoch"]),
                "values": {name: numbers(found[name]) for name in shown if name in found},
            }
            for number, found in histories.items()
        ],
        "left_out": len(results.trials) - len(chosen),
    }


def _chosen(trials: list[int], on_front: set[int]) -> list[int]:
    if len(trials) <= MAX_CURVES:
        return trials
    every = {trials[int(place)] for place in np.linspace(0, len(trials) - 1, MAX_CURVES)}
    return [number for number in trials if number in every or number in on_front]


def _history(results: Results, number: int) -> pd.DataFrame:
    try:
        found = pd.DataFrame(read_history(results.trial_folder(number)))
    except (OSError, InputError):
        return pd.DataFrame()
    return found if "epoch" in found else pd.DataFrame()
