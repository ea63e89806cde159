"""The cheapest dense net as good as a conditional model: what a saving must be measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.findings.baselines import is_baseline
from analysis.findings.summary import Summary


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
    objectives, points = summary.results.objectives, summary.results.candidates
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
    cheapest = _cheapest_as_good(sign * conditional[metric.metric], sign * dense[metric.metric], dense[cost.metric])
    shares = conditional[cost.metric] / dense[cost.metric].reindex(cheapest).to_numpy()  # NaN: no dense net is as good

    def match(label: Any) -> DenseMatch | None:
        share = float(shares[label])
        return None if np.isnan(share) else DenseMatch(conditional.loc[label], dense.loc[cheapest[label]], share)

    return DenseMatches(
        best_row=best_row,
        best=match(best_row.name),
        saving=match(shares.idxmin()) if (shares < 1).any() else None,
    )


def _cheapest_as_good(values: pd.Series, dense_values: pd.Series, dense_costs: pd.Series) -> pd.Series:
    """Return for each of ``values`` the label of the cheapest dense point with at least that value; NaN for none."""
    order = np.argsort(-dense_values.to_numpy(), kind="stable")
    costs = dense_costs.to_numpy()[order]
    is_new_least = costs < np.minimum.accumulate(np.concatenate([[np.inf], costs[:-1]]))
    cheapest_so_far = order[np.maximum.accumulate(np.where(is_new_least, np.arange(len(costs)), 0))]
    as_good = np.searchsorted(-dense_values.to_numpy()[order], -values.to_numpy(), side="right")
    labels = dense_values.index.to_series().astype(object).to_numpy()[cheapest_so_far[np.maximum(as_good - 1, 0)]]
    return pd.Series(np.where(as_good > 0, labels, np.nan), index=values.index)
