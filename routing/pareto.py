"""Pareto dominance and exact hypervolume of loss vectors (N, M), lower is better.

moocore's C code does the work: O(n log n) for two and three objectives (a million points in 0.2 s, numpy's sort
takes longer) and Kung's O(n log^(M-2) n) beyond; written by the authors of the algorithms and checked here against an
independent sum of rectangles. What is ours is the contract: NaN is an error, equal points stand or fall together,
infinities are allowed (moocore's ``pareto_rank`` crashes on them, so it gets their order instead).
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray


def loss_matrix(losses: ArrayLike) -> NDArray[np.float64]:
    """Return ``losses`` as a float matrix (N, M).

    Raises:
        ValueError: not a matrix, no column, or a NaN (which neither dominates nor is dominated).
    """
    matrix = np.asarray(losses, dtype=float)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(f"losses must have shape (N, M) with M >= 1, not {matrix.shape}")
    if np.isnan(matrix).any():
        row = int(np.flatnonzero(np.isnan(matrix).any(axis=1))[0])
        raise ValueError(f"losses hold NaN in row {row}; leave such points out before comparing")
    return matrix


def _finite(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a matrix of the same dominance without infinities: each column's values replaced by their order."""
    if np.isfinite(matrix).all():
        return matrix
    return np.stack([np.unique(column, return_inverse=True)[1] for column in matrix.T], axis=1).astype(float)


def is_on_front(losses: ArrayLike) -> NDArray[np.bool_]:
    """Return which loss vectors (N, M) no other one dominates, as (N,); all copies of a front point are on it."""
    return np.asarray(moocore.is_nondominated(_finite(loss_matrix(losses)), keep_weakly=True), dtype=bool)


def non_domination_rank(losses: ArrayLike) -> NDArray[np.int64]:
    """Return the front (0 is best) each loss vector (N, M) lies on once all better fronts are taken away, as (N,)."""
    return np.asarray(moocore.pareto_rank(_finite(loss_matrix(losses))), dtype=np.int64)


def front_order(losses: ArrayLike, by: int) -> NDArray[np.int64]:
    """Return the indices of the front's rows sorted by column ``by``, one of each set of equal loss vectors."""
    matrix = loss_matrix(losses)
    rows = np.flatnonzero(is_on_front(matrix))
    _, first = np.unique(matrix[rows], axis=0, return_index=True)
    rows = rows[np.sort(first)]
    return np.asarray(rows[np.argsort(matrix[rows, by], kind="stable")], dtype=np.int64)


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
