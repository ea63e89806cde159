"""The cheapest dense net as good as a conditional model: what a saving must be measured against."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.findings.baselines import is_baseline
from analysis.findings.summary import Summary
from routing.objectives import Objective


@dataclass(frozen=True)
class DenseMatch:
    """A conditional point, and the cheapest dense one with at least its value; ``share`` is their costs' quotient."""

    row: pd.Series
    dense: pd.Series
    share: float


@dataclass(frozen=True)
class DenseMatches:
    """``best`` is of the best conditional point (None: no dense net is as good), ``saving`` of the largest saving.

    ``saving`` is None where no conditional point costs less than the cheapest dense net as good.
    """

    best_row: pd.Series
    best: DenseMatch | None
    saving: DenseMatch | None


def dense_matches(summary: Summary) -> DenseMatches | None:
    """Compare conditional points with dense ones; None without both, or without a cost beside a metric."""
    objectives, points = summary.results.objectives, summary.results.points
    metric = next((objective for objective in objectives if not objective.is_cost), None)
    cost = next((objective for objective in objectives if objective.is_cost), None)
    if metric is None or cost is None or "model.name" not in points:
        return None
    points = points[points[[metric.metric, cost.metric]].notna().all(axis=1) & (points[cost.metric] > 0)]
    dense = points[is_baseline(points)]
    conditional = points[~is_baseline(points)]
    if dense.empty or conditional.empty:
        return None
    sign = 1 if metric.goal == "maximize" else -1
    order = conditional.assign(_value=-sign * conditional[metric.metric])
    best_row = conditional.loc[order.sort_values(["_value", cost.metric], kind="stable").index[0]]
    found = [_match(row, dense, metric, cost, sign) for _, row in conditional.iterrows()]
    savings = [match for match in found if match is not None and match.share < 1]
    return DenseMatches(
        best_row=best_row,
        best=_match(best_row, dense, metric, cost, sign),
        saving=min(savings, key=lambda match: match.share, default=None),
    )


def _match(row: pd.Series, dense: pd.DataFrame, metric: Objective, cost: Objective, sign: int) -> DenseMatch | None:
    as_good = dense[sign * dense[metric.metric] >= sign * row[metric.metric]]
    if as_good.empty:
        return None
    cheapest = as_good.loc[as_good[cost.metric].idxmin()]
    return DenseMatch(row, cheapest, float(row[cost.metric] / cheapest[cost.metric]))
