"""What the report page's chart and trial table show, as plain columns ready for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.findings.confirmed import confirmed_row, error_bars
from analysis.findings.summary import Summary
from analysis.read.configs import config_keys, knob_value, varied_keys, yaml_value
from analysis.read.results import default_points
from analysis.words.words import axis_label, scale
from routing.files.results_folder import ARM, MEAN, OPERATING_POINT
from routing.quantities import ordered

MAX_CHART_POINTS = 20_000
LATENCY = "ms_per_image"
NO_AXES = ("trial", *OPERATING_POINT, ARM)


def page_data(summary: Summary, confirmed: pd.DataFrame | None = None) -> dict[str, Any]:
    """Return the page's data: axes, operating points, trials with their configuration, table columns.

    Args:
        confirmed: confirm.csv, whose points are drawn with bars.
    """
    points = _with_latency(_chart_points(summary), summary.results.trials)
    bars = pd.DataFrame() if confirmed is None else error_bars(confirmed, summary.results)
    if confirmed is not None and len(bars):
        points = _with_confirmed(points, confirmed, bars)
    others = [name for name in map(str, points.columns) if name not in (*NO_AXES, *config_keys(points))]
    axes = [name for name in dict.fromkeys([*ordered(others), *others]) if _has_numbers(points[name])]
    objectives = [objective.metric for objective in summary.results.objectives]
    axes = list(dict.fromkeys([*(name for name in objectives if name in points), *axes]))
    trials = summary.results.trials
    front = set(summary.front.index)
    return {
        "objectives": objectives,
        "axes": [{"name": name, "label": axis_label(name), "scale": scale(name)} for name in axes],
        "points": {
            "trial": points["trial"].tolist(),
            "knob": _dictionary(points["knob"]),
            "knob_value": _dictionary(points["knob_value"].map(knob_value, na_action="ignore")),
            "is_default": [bool(value) for value in default_points(points)],
            "front": [bool(index in front) for index in points.index],
            "knee": [bool(index == summary.knee) for index in points.index],
            "values": {name: numbers(points[name]) for name in axes},
        },
        "confirmed": _bars(bars),
        "dropped": len(summary.results.points) - len(points),
        "trials": {
            "number": trials["number"].tolist(),
            "keys": {key: _dictionary(trials[key]) for key in config_keys(trials)},
            "arm": _dictionary(trials[ARM]) if ARM in trials else None,
            "varied": varied_keys(trials),
        },
        "table": _table(summary),
    }


def _with_confirmed(points: pd.DataFrame, confirmed: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
    """Return the points with what they reached under fresh seeds, in a column of the metric read there."""
    metric = bars["metric"].iloc[0]
    if metric in points:
        return points
    rows = [confirmed_row(confirmed, point) for _, point in points.iterrows()]
    points = points.copy()
    points[metric] = [None if row is None else row.get(f"{metric}{MEAN}") for row in rows]
    return points


def _bars(bars: pd.DataFrame) -> dict[str, Any] | None:
    """Return the confirmed points as the chart draws them, None without any."""
    if bars.empty:
        return None
    columns = {name: numbers(bars[name]) for name in ("x", "y", "y_low", "y_high")}
    metric = str(bars["metric"].iloc[0])
    return {**columns, "label": bars["label"].iloc[0], "metric": metric, "scale": scale(metric)}


def _chart_points(summary: Summary) -> pd.DataFrame:
    """Return the points to draw: all, or the front and evenly chosen others where a browser would choke."""
    points = summary.results.points
    if len(points) <= MAX_CHART_POINTS:
        return points
    every = np.linspace(0, len(points) - 1, MAX_CHART_POINTS).astype(int)
    return points.loc[points.index[every].union(summary.front.index)]


def _with_latency(points: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Return the points with the inference time of their trial; it was measured at the default value of the knob."""
    if LATENCY not in trials or LATENCY in points:
        return points
    measured = trials.set_index("number")[LATENCY].reindex(points["trial"])
    return points.assign(**{LATENCY: measured.where(default_points(points).to_numpy()).to_numpy()})


def _table(summary: Summary) -> list[dict[str, Any]]:
    """Return the columns of the trial table: a numeric one as numbers, another as text."""
    trials = summary.results.trials
    wanted = ["number", "state", "model.name", "model.router.mode"]
    wanted += [objective.metric for objective in summary.results.objectives]
    measured = [name for name in ordered(map(str, trials.columns)) if _has_numbers(trials[name])]
    wanted += ["arm", "router_state", *measured, *varied_keys(trials), "seed", "reason"]
    columns = []
    for name in dict.fromkeys(wanted):
        if name not in trials or (trials[name].isna().all() and name != "reason"):
            continue
        values = pd.to_numeric(trials[name], errors="coerce")
        numeric = bool(values.notna().sum() == trials[name].notna().sum() and values.notna().any())
        label = axis_label(name) if "." not in name else name
        column: dict[str, Any] = {"name": name, "label": label, "numeric": numeric, "scale": scale(name)}
        columns.append(column | {"cells": numbers(values) if numeric else _dictionary(trials[name])})
    return columns


def _has_numbers(values: pd.Series) -> bool:
    return bool(pd.to_numeric(values, errors="coerce").notna().any())


def numbers(values: Iterable[Any]) -> list[float | int | None]:
    """Return numbers with seven digits, None for NaN: a page is read by people, the tables keep every digit."""
    cleaned = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(dtype=float)
    return [_short(value) if np.isfinite(value) else None for value in cleaned]


def _short(value: float) -> float | int:
    rounded = float(f"{value:.7g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _dictionary(values: pd.Series) -> dict[str, list[Any]]:
    """Return a column as its distinct YAML texts and an index into them per row, -1 where empty."""
    codes, distinct = pd.factorize(values.astype(object), use_na_sentinel=True)
    return {"values": [yaml_value(value) for value in distinct], "codes": codes.tolist()}
