"""Which point of a results folder a pick names: knee, best, within a budget, within a latency, one trial's."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from analysis.findings.summary import Summary
from analysis.read.configs import knob_value
from analysis.read.objectives import losses
from analysis.read.results import Results, default_points
from routing.errors import InputError, choices, nearest

PICKS = ("knee", "best", "budget=FLOPS", "latency=MS", "trial=ID")

Measure = Callable[[pd.Series], float]


def choose(summary: Summary, pick: str, latency_ms: Measure | None = None) -> pd.Series:
    """Return the row of points.csv that a pick names.

    Args:
        pick: ``knee``, ``best`` (first objective), ``budget=FLOPS`` (best at that compute or less), ``latency=MS``
            (best point of the front whose measured latency is that or less), ``trial=ID`` (its own setting).
        latency_ms: measures a row's latency here, in milliseconds per image.

    Raises:
        InputError: an unknown pick, or one that no point satisfies.
    """
    kind, equals, text = pick.partition("=")
    if pick in ("knee", "best"):
        row = summary.knee_row if pick == "knee" else summary.best_row
        if row is None:
            raise InputError(f"{summary.results.folder}: no finished trial to export yet")
        return row
    if equals and kind == "budget":
        return _within_budget(summary.results, _number(pick, text))
    if equals and kind == "latency" and latency_ms is not None:
        return _within_latency(summary, _number(pick, text), latency_ms)
    if equals and kind == "trial":
        return _default_point(summary.results, _number(pick, text))
    raise InputError(f"unknown pick '{pick}'{nearest(pick, PICKS)} (valid: {choices(PICKS)})")


def _number(pick: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InputError(f"--pick {pick}: '{text}' is not a number")
    return number


def _best_first(points: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Return points ordered by the first objective, then by the next ones."""
    vectors = losses(points, results.objectives)
    return points.iloc[pd.DataFrame(vectors).sort_values(list(range(vectors.shape[1])), kind="stable").index]


def _within_budget(results: Results, limit: float) -> pd.Series:
    points = results.points
    affordable = points[points["flops"] <= limit]
    if affordable.empty:
        cheapest = f"; the cheapest point has {points['flops'].min():.6g}" if len(points) else ""
        raise InputError(f"{results.folder}: no point has flops <= {limit:.6g}{cheapest}")
    return _best_first(affordable, results).iloc[0]


def _within_latency(summary: Summary, limit: float, latency_ms: Measure) -> pd.Series:
    """Return the best point of the front that is fast enough, measuring from the best one down."""
    fastest = math.inf
    for _, row in _best_first(summary.front, summary.results).iterrows():
        measured = latency_ms(row)
        if measured <= limit:
            return row
        fastest = min(fastest, measured)
    raise InputError(
        f"{summary.results.folder}: no point of the front takes {limit:g} ms per image or less here"
        + (f"; the fastest takes {fastest:.3g} ms" if math.isfinite(fastest) else "")
    )


def _default_point(results: Results, number: float) -> pd.Series:
    own = results.points[results.points["trial"] == number]
    if own.empty:
        numbers = sorted(set(results.points["trial"]))
        valid = choices(numbers) if len(numbers) <= 20 else f"{numbers[0]} to {numbers[-1]}"
        raise InputError(f"{results.folder}: trial {number:g} has no finished point (valid: {valid or 'none yet'})")
    default = own[default_points(own)]
    return (default if len(default) else own).iloc[0]


def knob_of(row: pd.Series) -> float | str | None:
    """Return the knob's value that a point needs beside its trial's own setting, None for that setting itself."""
    if bool(default_points(row.to_frame().T).iloc[0]):
        return None
    value: float | str = knob_value(row["knob_value"])
    return value
