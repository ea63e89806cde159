"""Which point of a results folder a pick names: knee, best, within a budget, within a latency, one trial's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pandas as pd

from analysis.findings.summary import Summary
from analysis.read.configs import knob_value
from analysis.read.objectives import best_first
from analysis.read.results import Results, default_points
from routing.errors import InputError, choices, nearest
from routing.objectives import Objective

PICKS = ("knee", "best", "accuracy=0.93", "budget=400k", "latency=0.5", "trial=ID")
_NUMBER = re.compile(r"\s*([-+.\deE]+)\s*([kMGT%]?)\s*")
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "%": 0.01}

Measure = Callable[[pd.Series], float]


def choose(summary: Summary, pick: str, latency_ms: Measure | None = None) -> pd.Series:
    """Return the row of points.csv that a pick names.

    Args:
        pick: ``knee``, ``best`` (first objective), ``accuracy=0.93`` (the cheapest point that reaches it; any other
            objective alike), ``budget=400k`` (best at that compute or less), ``latency=0.5`` (best point of the front
            whose measured milliseconds are that or less), ``trial=ID`` (its own setting).
        latency_ms: measures a row's latency here, in milliseconds per image.

    Raises:
        InputError: an unknown pick, or one that no point satisfies.
    """
    kind, equals, text = pick.partition("=")
    if pick in ("knee", "best"):
        row = summary.knee_row if pick == "knee" else summary.best_row
        if row is None:
            raise InputError(f"{summary.results.folder}: nothing to export: {summary.why_no_front}")
        return row
    if equals and kind == "budget":
        return within(summary.results, "flops", _number(pick, text))
    if equals and kind == "latency" and latency_ms is not None:
        return _within_latency(summary, _number(pick, text), latency_ms)
    if equals and kind == "trial":
        return _default_point(summary.results, _number(pick, text))
    if equals and kind in _limits(summary.results):
        return within(summary.results, kind, _number(pick, text))
    raise InputError(f"unknown pick '{pick}'{nearest(pick, PICKS)} (valid: {choices(PICKS)})")


def _number(pick: str, text: str) -> float:
    """Return a number with k, M, G or T for multiply-adds, or % for a share."""
    found = _NUMBER.fullmatch(text)
    try:
        number = float(found[1]) * _UNITS[found[2]] if found else math.nan
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InputError(f"--pick {pick}: '{text}' is not a number (valid: 0.93, 93%, 400k, 1.2M)")
    return number


def _limits(results: Results) -> dict[str, Objective]:
    """Return the objectives by the names that a pick may use: ``val_accuracy`` and ``accuracy``."""
    objectives = results.objectives
    return {o.metric.removeprefix("val_"): o for o in objectives} | {o.metric: o for o in objectives}


def within(results: Results, key: str, limit: float) -> pd.Series:
    """Return the point that meets a limit of one objective and is best in the others, the first of them first.

    Args:
        key: an objective of the study, with or without ``val_``, or ``flops``.

    Raises:
        InputError: no such objective, or no point that meets the limit.
    """
    named, points = _limits(results), results.candidates
    if key not in named and not (key == "flops" and key in points):
        raise InputError(f"pick: '{key}' is no objective of this study (valid: {choices(named)})")
    objective = named.get(key) or Objective(metric=key, goal="minimize")
    column, sign = objective.metric, objective.sign
    fits = points[sign * points[column] <= sign * limit]
    if fits.empty:
        best = "cheapest" if objective.is_cost else "best"
        reached = sign * (sign * points[column]).min()
        there = "" if points.empty else f"; the {best} point has {reached:.6g}"
        what = "allowed point" if len(points) < len(results.points) else "point"
        raise InputError(f"{results.folder}: no {what} has {key} {'>=' if sign < 0 else '<='} {limit:.6g}{there}")
    others = [one for one in results.objectives if one.metric != column]
    return best_first(fits, [*others, objective]).iloc[0]


def _within_latency(summary: Summary, limit: float, latency_ms: Measure) -> pd.Series:
    """Return the best point of the front that is fast enough, measuring from the best one down."""
    fastest = math.inf
    for _, row in best_first(summary.front, summary.results.objectives).iterrows():
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
