"""The confirmed front: what the selected points reach under fresh seeds and on the test split."""

from __future__ import annotations

import math
from numbers import Real

import pandas as pd

from analysis.findings.picks import knob_of
from analysis.read.configs import knob_value
from analysis.read.results import Results, default_points
from analysis.words.tables import Column, Table, table
from analysis.words.words import axis_label, count, scale
from routing.files.results_folder import (
    CONFIRM_FILE,
    CONFIRM_FOLDER,
    HIGH,
    LOW,
    MEAN,
    SELECTED,
    WINNERS_CURSE,
)
from routing.quantities import find, on_split

NOTE = (
    "Every configuration was trained again under n fresh seeds; the test split was read here only. Intervals are 95 % "
    "intervals of the mean over seeds (Student's t). Selected: the validation value by which the point was chosen. "
    "Winner's curse: that value minus the mean on the test split."
)
NO_SEEDS = "no training under a fresh seed has finished"


def read_confirmed(results: Results) -> pd.DataFrame:
    """Return confirm.csv of a results folder, empty when there is none; a damaged one is named in ``problems``."""
    path = results.folder / CONFIRM_FOLDER / CONFIRM_FILE
    if not path.is_file():
        return pd.DataFrame()
    try:
        return pd.read_csv(path, dtype={"knob_value": str})  # every digit of a threshold, as in points.csv
    except (OSError, ValueError) as error:
        results.problems.append(f"{path}: not readable: {str(error).splitlines()[0]}")
        return pd.DataFrame()


def on_test_split(metric: str) -> str:
    """Return the test split's name of a validation metric."""
    return on_split(metric, "test")


def confirmed_row(confirmed: pd.DataFrame, point: pd.Series) -> pd.Series | None:
    """Return the row of confirm.csv that stands for a row of points.csv, None where it was not confirmed."""
    if confirmed.empty or "trial" not in confirmed:
        return None
    own = confirmed[confirmed["trial"] == point["trial"]]
    knob = knob_of(point)
    if knob is None and "is_default" in own:
        own = own[default_points(own)]
    elif knob is not None and "knob_value" in own:
        own = own[[knob_value(value) == knob for value in own["knob_value"]]]
    return None if own.empty else own.iloc[0]


def reached(found: pd.Series, results: Results) -> str:
    """Return what a row of confirm.csv reaches on the test split, in words; empty without a test value."""
    metric = on_test_split(results.objectives[0].metric)
    values = [found.get(f"{metric}{end}") for end in (MEAN, LOW, HIGH)]
    mean, low, high = (float(v) * scale(metric) if isinstance(v, Real) else math.nan for v in values)
    if math.isnan(mean):
        return ""
    bounds = "" if math.isnan(low + high) else f" [{low:.2f}, {high:.2f}]"
    return f"{axis_label(metric)} {mean:.2f}{bounds} over {found.get('n', '?')} fresh seeds"


def error_bars(confirmed: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Return what the front's figure draws: ``x``, ``y``, ``y_low``, ``y_high``, ``label``; test values where known."""
    if confirmed.empty or len(results.objectives) < 2:
        return pd.DataFrame()
    task, cost = results.objectives[0].metric, results.objectives[1].metric
    metric = on_test_split(task) if f"{on_test_split(task)}{MEAN}" in confirmed else task
    x, y = _numbers(confirmed, f"{cost}{MEAN}"), _numbers(confirmed, f"{metric}{MEAN}")
    bars = pd.DataFrame({"x": x.fillna(_numbers(confirmed, cost)), "y": y})
    bars["y_low"] = _numbers(confirmed, f"{metric}{LOW}").fillna(y)
    bars["y_high"] = _numbers(confirmed, f"{metric}{HIGH}").fillna(y)
    bars = bars.dropna()
    seeds = _numbers(confirmed, "n")[bars.index].min()
    n = "" if math.isnan(seeds) else f", n = {int(seeds)}"
    return bars.assign(label=f"confirmed: {axis_label(metric).split(' (')[0]}, 95 %{n}")


def _numbers(confirmed: pd.DataFrame, column: str) -> pd.Series:
    """Return a column as numbers, NaN where it is missing."""
    if column not in confirmed:
        return pd.Series(math.nan, index=confirmed.index)
    return pd.to_numeric(confirmed[column], errors="coerce")


def confirm_table(confirmed: pd.DataFrame, results: Results) -> Table | None:
    """Return the confirmed points as text, None without any: every ``m_mean`` with its ``m_low`` and ``m_high``."""
    if confirmed.empty:
        return None
    task = results.objectives[0].metric
    columns = [str(column) for column in confirmed.columns]
    metrics = [column.removesuffix(MEAN) for column in columns if column.endswith(MEAN)]
    names = [c for c in ("trial", "model.name", "model.router.mode", "knob", "knob_value", "n") if c in confirmed]
    rest = [
        column
        for column in columns
        if column not in (*names, "is_default") and not column.endswith((MEAN, LOW, HIGH)) and "." not in column
    ]
    rows = [
        [_text(column, row[column]) for column in names]
        + [_interval(row, metric) for metric in metrics]
        + [_text(task if column == WINNERS_CURSE else column.removeprefix(SELECTED), row[column]) for column in rest]
        for _, row in confirmed.iterrows()
    ]
    headings = [Column(name, name in ("trial", "n")) for name in names]
    headings += [Column(f"{axis_label(metric)} [95 %]", True) for metric in metrics]
    headings += [Column(_heading(column), True) for column in rest]
    note = NOTE + (f" n = 0: {NO_SEEDS}." if _numbers(confirmed, "n").eq(0).any() else "")
    return table("The front, trained again under fresh seeds", headings, rows, note)


def _heading(column: str) -> str:
    if column == WINNERS_CURSE:
        return "winner's curse"
    return f"selected {axis_label(column.removeprefix(SELECTED))}" if column.startswith(SELECTED) else column


def _interval(row: pd.Series, metric: str) -> str:
    values = [row.get(f"{metric}{end}", math.nan) for end in (MEAN, LOW, HIGH)]
    texts = [_text(metric, value) for value in values]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" if texts[1] and texts[2] else texts[0]


def _text(column: str, value: object) -> str:
    if isinstance(value, str):
        return value
    number = float(value) if isinstance(value, (int, float)) else math.nan
    if math.isnan(number):
        return ""
    known = find(column)
    if known is None:
        return f"{number:.4g}"
    return count(number) if known.is_count else known.shown(number)
