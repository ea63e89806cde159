"""The dense models every routed point is compared with."""

from __future__ import annotations

import pandas as pd

from analysis.read.objectives import best_first
from analysis.read.results import Results
from routing.config import names


def is_baseline(table: pd.DataFrame) -> pd.Series:
    """Return which rows are of a baseline model."""
    if "model.name" not in table:
        return pd.Series(False, index=table.index)
    return table["model.name"].map(names.is_baseline).astype(bool)


def best_baselines(results: Results) -> pd.DataFrame:
    """Return each baseline's best point by the first objective, the cheaper one when equal; one row a model."""
    points = results.candidates[is_baseline(results.candidates)]
    if points.empty:
        return points
    return best_first(points, results.objectives).drop_duplicates("model.name")
