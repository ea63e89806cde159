"""Exact hypervolume of loss vectors against a reference point, and how it grew over a study.

moocore computes it: exact, O(n log n) for two and three objectives, written by the authors of the algorithms and
checked here against an independent sum of rectangles; a plane sweep of our own would be a second copy.
"""

from __future__ import annotations

from collections.abc import Iterable

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.findings.front import is_on_front, loss_matrix


def hypervolume(losses: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume dominated by ``losses`` (N, M) and bounded by ``reference`` (M,).

    A point that is not better than the reference in every objective adds nothing; no point at all gives 0.

    Raises:
        ValueError: NaN, a reference that is not finite, or shapes that do not fit.
    """
    matrix, corner = loss_matrix(losses), np.asarray(reference, dtype=float)
    if corner.shape != (matrix.shape[1],) or not np.isfinite(corner).all():
        raise ValueError(f"reference must be {matrix.shape[1]} finite numbers, not {corner.tolist()}")
    matrix = matrix[np.all(matrix < corner, axis=1)]
    return float(moocore.hypervolume(matrix, ref=corner)) if len(matrix) else 0.0


def hypervolume_history(batches: Iterable[ArrayLike], reference: ArrayLike) -> NDArray[np.float64]:
    """Return the hypervolume after each batch (K, M) of loss vectors, as (number of batches,).

    Only the current front is kept, and a batch that adds nothing to it costs one comparison.
    """
    corner = np.asarray(reference, dtype=float)
    front = np.empty((0, len(corner)))
    volume, history = 0.0, []
    for batch in batches:
        new = loss_matrix(batch)
        new = new[np.all(new < corner, axis=1)]
        covered = np.any(np.all(front[None, :, :] <= new[:, None, :], axis=2), axis=1)
        if not covered.all():
            front = np.concatenate([front, new[~covered]])
            front = front[is_on_front(front)]
            volume = hypervolume(front, corner)
        history.append(volume)
    return np.array(history)
