"""What the charts of a page show, as plain columns ready for JSON: axes, operating points, their series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.findings.baselines import is_baseline
from analysis.findings.confirmed import confirmed_row, error_bars
from analysis.findings.series import looks_of, series
from analysis.findings.summary import Summary
from analysis.page.columns import dictionary, has_numbers, numbers
from analysis.page.trial_data import curves, trial_table, trials_of
from analysis.read.configs import config_keys, knob_value
from analysis.read.results import default_points
from analysis.words.words import axis_label, scale
from routing.files.results_folder import ARM, MEAN, OPERATING_POINT, TRIALS_FOLDER
from routing.objectives import Objective
from routing.quantities import find, ordered

MAX_CHART_POINTS = 20_000
LATENCY = "ms_per_image"
NO_AXES = ("trial", *OPERATING_POINT, ARM)
SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "P": "cross", "X": "x", "v": "triangle-down",
    "*": "star", "<": "triangle-left", ">": "triangle-right", "d": "diamond-tall", "h": "hexagon2",
    "8": "octagon", "H": "hexagon",
}  # fmt: skip
"""Shapes of the figures by the names that the chart library has for them."""


def page_data(summary: Summary, confirmed: pd.DataFrame | None = None) -> dict[str, Any]:
    """Return the data of a report: axes, operating points, trials with their configuration and curves, table columns.

    Args:
        confirmed: confirm.csv, whose points are drawn with bars.
    """
    results = summary.results
    points = with_latency(few_points(results.points, summary.front.index), results.trials)
    bars = pd.DataFrame() if confirmed is None else error_bars(confirmed, results)
    if confirmed is not None and len(bars):
        points = _with_confirmed(points, confirmed, bars)
    names = series(points)
    row_of = {number: row for row, number in enumerate(results.trials["number"])}
    front = set(summary.front.index)
    return {
        **chart_data(points, results.objectives, names, results.allowed[points.index]),
        "trial_of": [row_of.get(number, -1) for number in points["trial"]],
        "front": [bool(index in front) for index in points.index],
        "knee": [bool(index == summary.knee) for index in points.index],
        "confirmed": _bars(bars),
        "dropped": len(results.points) - len(points),
        "trials": trials_of([results], [TRIALS_FOLDER]),
        "curves": curves(summary, dict(zip(points["trial"], names, strict=True))),
        "table": trial_table(results),
    }


def chart_data(
    points: pd.DataFrame, objectives: Sequence[Objective], names: pd.Series, allowed: pd.Series
) -> dict[str, Any]:
    """Return the axes, the points and their series of a chart.

    Args:
        names: of the series of every point, see ``findings.series``.
        allowed: which points keep to the constraints, so that they can be on a front.
    """
    others = [name for name in map(str, points.columns) if name not in (*NO_AXES, *config_keys(points))]
    axes = [name for name in dict.fromkeys([*ordered(others), *others]) if has_numbers(points[name])]
    metrics = [objective.metric for objective in objectives]
    axes = list(dict.fromkeys([*(name for name in metrics if name in points), *axes]))
    declared = {objective.metric: objective for objective in objectives}
    found = looks_of(points, names)
    dense = is_baseline(points).groupby(names).all()
    place = {name: index for index, name in enumerate(found)}
    return {
        "objectives": metrics,
        "axes": [axis(name, declared.get(name)) for name in axes],
        "series": [
            {"name": name, "color": one.colour, "symbol": SYMBOLS[one.marker], "dense": bool(dense[name])}
            for name, one in found.items()
        ],
        "points": {
            "trial": points["trial"].tolist(),
            "series": [place[name] for name in names],
            "knob": dictionary(points["knob"]),
            "knob_value": dictionary(points["knob_value"].map(knob_value, na_action="ignore")),
            "is_default": [bool(value) for value in default_points(points)],
            "allowed": allowed.tolist(),
            "values": {name: numbers(points[name]) for name in axes},
        },
    }


def axis(name: str, objective: Objective | None = None) -> dict[str, Any]:
    """Return what a page must know of a measured column: label, unit, digits, direction, logarithmic or not."""
    known = find(name)
    return {
        "name": name,
        "label": axis_label(name),
        "scale": scale(name),
        "digits": ".4g" if known is None else "count" if known.is_count else known.digits,
        "unit": known.unit if known is not None and known.unit and not known.is_count else "",
        "goal": objective.goal if objective else known.goal if known else None,
        "log": objective.in_logs if objective else known is not None and known.scale == "log",
    }


def few_points(points: pd.DataFrame, always: pd.Index, most: int = MAX_CHART_POINTS) -> pd.DataFrame:
    """Return the points to draw: all, or ``always`` and evenly chosen others where a browser would choke."""
    if len(points) <= most:
        return points
    every = np.linspace(0, len(points) - 1, most).astype(int)
    return points.loc[points.index[every].union(always)]


def with_latency(points: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Return the points with the inference time of their trial; it was measured at the default value of the knob."""
    if LATENCY not in trials or LATENCY in points:
        return points
    measured = trials.set_index("number")[LATENCY].reindex(points["trial"])
    return points.assign(**{LATENCY: measured.where(default_points(points).to_numpy()).to_numpy()})


def _with_confirmed(points: pd.DataFrame, confirmed: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
    """Return the points with what they reached under fresh seeds, in a column of the metric read there."""
    metric = bars["metric"].iloc[0]
    if metric in points:
        return points
    trained_again = points[points["trial"].isin(confirmed.get("trial", ()))]  # few; the others have no such row
    rows = {index: confirmed_row(confirmed, point) for index, point in trained_again.iterrows()}
    points = points.copy()
    found = [rows.get(index) for index in points.index]
    points[metric] = [None if row is None else row.get(f"{metric}{MEAN}") for row in found]
    return points


def _bars(bars: pd.DataFrame) -> dict[str, Any] | None:
    """Return the confirmed points as the chart draws them, None without any; a bar without length is none."""
    if bars.empty:
        return None
    long = bars["y_high"] > bars["y_low"]
    columns = {name: numbers(bars[name]) for name in ("x", "y")}
    columns |= {name: numbers(bars[name].where(long)) for name in ("y_low", "y_high")}
    metric = str(bars["metric"].iloc[0])
    return {**columns, "label": bars["label"].iloc[0], "metric": metric}
