"""The confirmed front: what the selected points reach under fresh seeds and on the test split."""

from __future__ import annotations

import math
from numbers import Real

import pandas as pd

from analysis.findings.picks import knob_of
from analysis.read.configs import knob_value, naming_keys
from analysis.read.results import Results, default_points
from analysis.words.tables import Column, Table, table
from analysis.words.words import axis_label, count, of_script, scale, shown
from routing.claim import ONE_POINT
from routing.files.results_folder import (
    BASELINE,
    CONFIRM_FILE,
    CONFIRM_FOLDER,
    DIFFERENCE,
    HIGH,
    LOW,
    MEAN,
    OF_BASELINE,
    ON_FRONT,
    PAIRS,
    SELECTED,
    WINNERS_CURSE,
)
from routing.intervals import FEWEST
from routing.quantities import SHARE, find, on_split

SHARE_FACTOR = SHARE["factor"]

NOTE = (
    "Every configuration, and the dense baseline, was trained again under n fresh seeds; the test split was read here "
    "only. Brackets are 95 % intervals of the mean over seeds (Student's t on the logit scale of a metric's range, "
    "which they never leave); below three seeds the range of the values. Difference: to the baseline, paired by seed. "
    "Selected: the validation value by which the point was chosen. Winner's curse: that value minus the mean on the "
    "test split."
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
    n = seeds_of(found)
    bounds = "" if math.isnan(low + high) else f" {bracket(low, high, n)}"
    return f"{axis_label(metric)} {mean:.2f}{bounds} over {n} fresh seeds"


def seeds_of(found: pd.Series) -> int:
    """Return how many fresh seeds a row of confirm.csv stands for."""
    return int(found["n"]) if isinstance(found.get("n"), Real) else 0


def bracket(low: float, high: float, n: int) -> str:
    """Return the bounds of a mean over n seeds in words: an interval from three seeds on, else their range."""
    return f"[{low:.2f}, {high:.2f}]" if n >= FEWEST else f"(range {low:.2f} to {high:.2f})"


def against_baseline(found: pd.Series, confirmed: pd.DataFrame, results: Results) -> str:
    """Return what fresh seeds say of a row of confirm.csv against its baseline; empty without a paired baseline.

    ``confirmed`` where the interval of the difference stays within one point below the baseline, ``refuted`` where it
    lies further down, else ``undecided``.
    """
    baseline = confirmed[confirmed["trial"] == found.get(BASELINE)] if BASELINE in confirmed else confirmed[:0]
    baseline = baseline[_numbers(baseline, f"{DIFFERENCE}{MEAN}").isna()]
    metric = on_test_split(results.objectives[0].metric)
    mean, low, high = (_number(found.get(f"{DIFFERENCE}{end}")) for end in (MEAN, LOW, HIGH))
    if baseline.empty or math.isnan(mean) or f"{metric}{MEAN}" not in confirmed:
        return ""
    factor, n = scale(metric), int(_number(found.get(PAIRS)))
    known, name = find(metric), str(baseline.iloc[0].get("model.name", "the baseline"))
    sign = -1.0 if known is not None and known.goal == "minimize" else 1.0
    worst, best = sorted((sign * low, sign * high))
    says = "undecided"
    if n >= FEWEST and factor == SHARE_FACTOR:
        says = "confirmed" if worst >= -ONE_POINT else "refuted" if best < -ONE_POINT else says
    ours, theirs = (shown(metric, row[f"{metric}{MEAN}"]) for row in (found, baseline.iloc[0]))
    bounds = "" if math.isnan(low + high) else f" {bracket(low * factor, high * factor, n)}"
    share = _number(found.get(OF_BASELINE))
    cost = "" if math.isnan(share) else f" at {share:.0%} of the compute"
    difference = f"difference {mean * factor:.2f}{bounds}, {n} seeds"
    return f"{says}: {ours} against {theirs} of {name} ({difference}){cost}"


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
    kind = "95 %" if seeds >= FEWEST else "range"
    return bars.assign(label=f"confirmed: {axis_label(metric).split(' (')[0]}, {kind}{n}", metric=metric)


def confirmed_rows(confirmed: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Return confirm.csv in words for a terminal: what ran, seeds, value, difference, cost, probability, the curse."""
    metric = on_test_split(results.objectives[0].metric)
    metric = metric if f"{metric}{MEAN}" in confirmed else results.objectives[0].metric
    rows, keys = [], naming_keys(results.trials)
    for _, row in confirmed.iterrows():
        cost = next((o.metric for o in results.objectives if o.is_cost), "")
        rows.append(
            {
                "trial": row.get("trial"),
                "model": of_script(row.to_dict(), keys)
                or next(str(row[key]) for key in (*_MODEL, "trial") if key in row and not pd.isna(row[key])),
                axis_label(metric): _interval(row, metric),
                "difference": _paired(row, f"{DIFFERENCE}{MEAN}", metric),
                "on front": _paired(row, ON_FRONT, metric),
                "compute": shown(cost, row.get(f"{cost}{MEAN}")) if cost else "",
                "seeds": row.get("n"),
                "value": "" if pd.isna(row.get("knob_value")) else knob_value(row["knob_value"]),
            }
        )
    return pd.DataFrame(rows)


_MODEL = ("model.router.mode", "model.name")
"""What tells the points of a front apart in one word: the router, of a dense model its name."""


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
    metrics = [metric for metric in metrics if metric != DIFFERENCE]
    names = [c for c in ("trial", *naming_keys(results.trials), "knob", "knob_value", "n") if c in confirmed]
    rest = [
        column
        for column in columns
        if column not in (*names, "is_default", PAIRS, BASELINE, OF_BASELINE, ON_FRONT)
        and not column.endswith((MEAN, LOW, HIGH))
        and "." not in column
    ]
    paired = [column for column in (f"{DIFFERENCE}{MEAN}", OF_BASELINE, ON_FRONT) if column in columns]
    rows = [
        [_text(column, row[column]) for column in names]
        + [_interval(row, metric) for metric in metrics]
        + [_paired(row, column, task) for column in paired]
        + [_text(task if column == WINNERS_CURSE else column.removeprefix(SELECTED), row[column]) for column in rest]
        for _, row in confirmed.iterrows()
    ]
    headings = [Column(name, name in ("trial", "n")) for name in names]
    headings += [Column(f"{axis_label(metric)} [95 %]", True) for metric in metrics]
    headings += [Column(_PAIRED[column], True) for column in paired]
    headings += [Column(_heading(column), True) for column in rest]
    note = NOTE + (f" n = 0: {NO_SEEDS}." if _numbers(confirmed, "n").eq(0).any() else "")
    return table("The front, trained again under fresh seeds", headings, rows, note)


_PAIRED = {
    f"{DIFFERENCE}{MEAN}": "difference to the baseline [95 %]",
    OF_BASELINE: "cost, % of the baseline",
    ON_FRONT: "on the front with probability",
}


def _paired(row: pd.Series, column: str, task: str) -> str:
    value = _number(row.get(column))
    if math.isnan(value):
        return ""
    if column == OF_BASELINE:
        return f"{value:.0%}"
    if column == ON_FRONT:
        return f"{value:.2f}"
    low, high = (_number(row.get(f"{DIFFERENCE}{end}")) * scale(task) for end in (LOW, HIGH))
    bounds = "" if math.isnan(low + high) else f" {bracket(low, high, int(_number(row.get(PAIRS))))}"
    return f"{value * scale(task):.2f}{bounds}"


def _heading(column: str) -> str:
    if column == WINNERS_CURSE:
        return "winner's curse"
    return f"selected {axis_label(column.removeprefix(SELECTED))}" if column.startswith(SELECTED) else column


def _interval(row: pd.Series, metric: str) -> str:
    values = [row.get(f"{metric}{end}", math.nan) for end in (MEAN, LOW, HIGH)]
    texts = [_text(metric, value) for value in values]
    if not (texts[1] and texts[2]):
        return texts[0]
    is_range = seeds_of(row) < FEWEST
    return f"{texts[0]} (range {texts[1]} to {texts[2]})" if is_range else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _number(value: object) -> float:
    return float(value) if isinstance(value, Real) else math.nan


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
