"""The front of the dense baselines, and the range of values that is worth looking at."""

from __future__ import annotations

import pandas as pd

from analysis.findings.baselines import is_baseline
from analysis.findings.summary import Summary, front_of
from analysis.read.objectives import losses

MARGIN = 0.06
"""Room beyond the fronts, as a share of their range."""


def dense_front(summary: Summary) -> pd.DataFrame:
    """Return the rows of points.csv on the front of the dense baselines alone, ordered by cost."""
    results = summary.results
    dense = results.candidates[is_baseline(results.candidates)]
    return front_of(dense, results.objectives)


def span(summary: Summary, further: pd.Series | None = None) -> tuple[float, float] | None:
    """Return the lowest and highest value of the first objective on the front, with a margin; None without a front.

    The best dense baseline is inside, the others need not be: cheap poor nets would flatten all else.

    Args:
        further: values that must be inside, too.
    """
    task = summary.results.objectives[0].metric
    dense = dense_front(summary)
    best = losses(dense, summary.results.objectives)[:, 0].argsort(kind="stable")[:1]
    found = [summary.front[task], dense[task].iloc[best], *([] if further is None else [further])]
    values = pd.concat(found).astype(float).dropna()
    if values.empty:
        return None
    low, high = float(values.min()), float(values.max())
    margin = MARGIN * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin
