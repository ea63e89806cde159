"""Which family of models owns which stretch of the front, in words."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.findings.baselines import is_baseline
from analysis.findings.summary import Summary
from analysis.read.constraints import why_none
from analysis.read.objectives import losses
from analysis.words.words import name as metric_name
from analysis.words.words import shown
from routing.objectives import Objective

BASELINE_FAMILY = "the dense baselines"
MANY = 6
"""Stretches beyond which they are counted rather than listed."""


@dataclass(frozen=True)
class Stretch:
    """Neighbouring points of the front, by cost, that belong to one family; ``rows`` are theirs."""

    family: str
    rows: pd.DataFrame


def family(table: pd.DataFrame) -> pd.Series:
    """Return the family of each row: its model, or one name for all dense baselines."""
    if "model.name" not in table:
        return pd.Series("", index=table.index)
    return table["model.name"].astype(str).mask(is_baseline(table), BASELINE_FAMILY)


def stretches(front: pd.DataFrame) -> list[Stretch]:
    """Return the stretches of a front whose rows are ordered by cost."""
    names = family(front)
    runs = (names != names.shift()).cumsum()
    return [Stretch(str(names.loc[rows.index[0]]), rows) for _, rows in front.groupby(runs, sort=False)]


def ownership(summary: Summary) -> list[str]:
    """Return sentences on the family that holds each region of the front; none with one family or without a cost."""
    names, objectives = family(summary.results.points), summary.results.objectives
    cost = next((objective for objective in objectives if objective.is_cost), None)
    metric = next((objective for objective in objectives if not objective.is_cost), None)
    if names.nunique() < 2 or cost is None or metric is None or summary.front.empty:
        return []
    owned = stretches(summary.front)
    lines = [_listed(owned, cost, metric)] if len(owned) <= MANY else [_counted(owned)]
    absent = [name for name in names.unique() if name not in {stretch.family for stretch in owned}]
    return [*lines, *(_absent(name, summary, cost, metric) for name in absent)]


def _listed(owned: list[Stretch], cost: Objective, metric: Objective) -> str:
    parts = []
    for stretch in owned:
        costs = _range(stretch.rows, cost, alone="at")
        reached = _range(stretch.rows, metric)
        points = "1 point" if len(stretch.rows) == 1 else f"{len(stretch.rows)} points"
        parts.append(f"{stretch.family} {costs} ({points}, {reached})")
    return f"Along the front, by {metric_name(cost.metric)}: {'; '.join(parts)}."


def _range(rows: pd.DataFrame, objective: Objective, alone: str = "") -> str:
    """Return ``from 58 k to 144 k`` or ``at 58 k``; without ``alone``, only the numbers."""
    first, last = (shown(objective.metric, row[objective.metric]) for _, row in rows.iloc[[0, -1]].iterrows())
    if len(rows) == 1:
        return f"{alone} {first}".strip()
    return f"{'from ' if alone else ''}{first} to {last}"


def _counted(owned: list[Stretch]) -> str:
    counts = pd.Series([s.family for s in owned for _ in range(len(s.rows))]).value_counts()
    parts = [f"{name} {count}" for name, count in counts.items()]
    return f"Families take turns along the front; of its {counts.sum()} points are: {', '.join(parts)}."


def _absent(name: str, summary: Summary, cost: Objective, metric: Objective) -> str:
    """Return the best value of a family that has no point on the front, and the front's value at that cost."""
    results = summary.results
    own = results.candidates[family(results.candidates) == name]
    if own.empty:
        return f"No point of the front belongs to {name}: {why_none(results.points[family(results.points) == name])}."
    best = _best(own, metric)
    reached = f"{shown(metric.metric, best[metric.metric])} at {shown(cost.metric, best[cost.metric])}"
    rival = _best(summary.front[summary.front[cost.metric] <= best[cost.metric]], metric)
    owner = family(rival.to_frame().T).iloc[0]
    return (
        f"No point of the front belongs to {name}: it reaches {reached}, where {owner} has "
        f"{shown(metric.metric, rival[metric.metric])}."
    )


def _best(rows: pd.DataFrame, metric: Objective) -> pd.Series:
    return rows.iloc[int(losses(rows, (metric,))[:, 0].argmin())]
