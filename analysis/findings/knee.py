"""The knee of a front: where giving up a little of one objective stops buying much of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from routing.pareto import loss_matrix


def scaled(losses: ArrayLike) -> NDArray[np.float64]:
    """Return losses (N, M) with every column scaled to [0, 1]."""
    matrix = loss_matrix(losses)
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    return np.asarray((matrix - low) / np.where(high > low, high - low, 1.0))


def knee_index(front: ArrayLike) -> int:
    """Return the row of ``front`` (N, M) farthest below the plane through the front's extremes.

    With every loss scaled to [0, 1] over the front that is the row with the smallest sum of losses; the first one
    when several are equal. Source: Das, "On characterizing the knee of the Pareto curve based on normal-boundary
    intersection", Structural Optimization 18 (1999).

    Args:
        front: finite loss vectors of a front, on the scales that the figures show.

    Raises:
        ValueError: an empty front has no knee.
    """
    matrix = loss_matrix(front)
    if not len(matrix):
        raise ValueError("an empty front has no knee")
    return int(scaled(matrix).sum(axis=1).argmin())
