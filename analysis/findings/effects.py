"""What the figures of single parameters show: slices, means per level, knob curves, scaled axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.findings.series import series
from analysis.findings.summary import Summary
from analysis.read.configs import varied_keys
from analysis.read.objectives import measured
from analysis.read.results import Results, default_points
from analysis.words.words import axis_label, shown
from routing.files.results_folder import ARM, COMPLETE
from routing.quantities import interval_of

MAX_KEYS = 9
MAX_LEVELS = 12
GRID_KEY = "dataset.patch_grid_size"


@dataclass(frozen=True)
class ParallelAxis:
    """One axis of parallel coordinates: positions in [0, 1] per row (NaN where a row has no value), and its ticks."""

    label: str
    positions: NDArray[np.float64]
    ticks: tuple[tuple[float, str], ...]


def finished(results: Results) -> pd.DataFrame:
    """Return the finished trials with every objective measured."""
    trials = results.trials
    return trials[(trials["state"] == COMPLETE) & measured(trials, results.objectives)]


def slice_keys(trials: pd.DataFrame, searched: Sequence[str] = ()) -> list[str]:
    """Return the varied keys worth a panel: numbers, and names with few levels; searched keys before others."""
    varied = sorted(varied_keys(trials), key=lambda key: key not in searched)
    keys = [key for key in varied if is_number(trials[key]) or trials[key].nunique() <= MAX_LEVELS]
    return keys[:MAX_KEYS]


def is_number(values: pd.Series) -> bool:
    """Whether every value that is there is a number."""
    given = values.dropna()
    numeric = pd.to_numeric(given, errors="coerce").notna().all() and given.dtype != bool
    return bool(len(given)) and bool(numeric)


def is_few_counts(values: pd.Series) -> bool:
    """Whether numbers are a few whole ones, best read as names."""
    numbers = pd.to_numeric(values, errors="coerce").dropna()
    return bool((numbers % 1 == 0).all()) and numbers.nunique() <= 6


def spans_decades(values: pd.Series) -> bool:
    """Whether numbers are positive and best read on a logarithmic axis."""
    given = pd.to_numeric(values, errors="coerce").dropna()
    return bool(len(given)) and bool(given.min() > 0) and bool(given.max() / given.min() >= 20)


def level_means(trials: pd.DataFrame, key: str, metric: str) -> pd.DataFrame:
    """Return ``group``, ``level``, ``n``, ``mean``, ``low``, ``high`` of a metric per level of a key and per series."""
    rows = []
    group = series(trials.drop(columns=ARM, errors="ignore"))
    for (name, level), own in trials.groupby([group.rename("group"), key], sort=True):
        interval = interval_of(metric, own[metric].astype(float))
        rows.append({"group": name, "level": level, "n": len(own), **interval._asdict()})
    return pd.DataFrame(rows, columns=["group", "level", "n", "mean", "low", "high"])


def knob_curves(summary: Summary) -> dict[str, list[pd.DataFrame]]:
    """Return, per kind of knob, a curve for every trial with at least three numeric knob values, ordered by value.

    Columns: trial, ``knob_value`` as a number, ``is_default`` as a truth value, routing_ratio, flops, the objectives.
    """
    points = summary.results.points
    numbers = pd.to_numeric(points["knob_value"], errors="coerce")
    metrics = ["routing_ratio", "flops", *(objective.metric for objective in summary.results.objectives)]
    columns = list(dict.fromkeys(["knob", "trial", "knob_value", "is_default", *metrics]))
    numeric = points[columns].assign(knob_value=numbers, is_default=default_points(points))[numbers.notna()]
    numeric = numeric.sort_values(["knob", "trial", "knob_value"], kind="stable")
    numeric = numeric[numeric.groupby(["knob", "trial"])["knob_value"].transform("nunique") >= 3]
    curves: dict[str, list[pd.DataFrame]] = {}
    for (knob, _), own in numeric.groupby(["knob", "trial"], sort=True):
        curves.setdefault(str(knob), []).append(own)
    return curves


def parallel_axes(trials: pd.DataFrame, metrics: Sequence[str], searched: Sequence[str] = ()) -> list[ParallelAxis]:
    """Return the axes of parallel coordinates: the slice keys, then the metrics."""
    keys = slice_keys(trials, searched)
    names = {key: key.removeprefix("model.").replace(".", " ").replace("_", " ") for key in keys}
    names |= {metric: axis_label(metric) for metric in metrics}
    return [_axis(key, trials[key], name) for key, name in names.items()]


def _axis(key: str, values: pd.Series, label: str) -> ParallelAxis:
    if is_number(values):
        numbers = pd.to_numeric(values, errors="coerce")
        log = spans_decades(numbers)
        scaled = np.log(numbers) if log else numbers
        low, high = scaled.min(), scaled.max()
        positions = (scaled - low) / (high - low) if high > low else scaled * 0 + 0.5
        ends = ((0.0, shown(key, numbers.min())), (1.0, shown(key, numbers.max())))
        return ParallelAxis(label + (", log" if log else ""), positions.to_numpy(dtype=float), ends)
    levels = sorted(values.dropna().astype(str).unique())
    place = {level: index / max(len(levels) - 1, 1) for index, level in enumerate(levels)}
    positions = values.astype(object).map(lambda v: place[str(v)] if pd.notna(v) else np.nan)
    return ParallelAxis(label, positions.to_numpy(dtype=float), tuple((place[level], level) for level in levels))
