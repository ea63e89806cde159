"""Hypervolume: areas that can be checked by hand, and an independent sum over grid cells."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis.findings.hypervolume import hypervolume_history
from routing.pareto import hypervolume


def cells(losses, reference):
    """Sum the cells of the grid through all coordinates whose lower corner some point dominates."""
    losses, reference = np.asarray(losses, dtype=float), np.asarray(reference, dtype=float)
    axes = [
        np.unique(np.clip(np.append(losses[:, m], reference[m]), None, reference[m])) for m in range(len(reference))
    ]
    total = 0.0
    for index in itertools.product(*(range(len(axis) - 1) for axis in axes)):
        low = np.array([axis[i] for axis, i in zip(axes, index, strict=True)])
        high = np.array([axis[i + 1] for axis, i in zip(axes, index, strict=True)])
        if (losses <= low).all(axis=1).any():
            total += float(np.prod(high - low))
    return total


def test_known_areas():
    assert hypervolume([[1, 1]], [3, 4]) == 6  # 2 x 3
    # (1, 2): 2 x 1 up to (3, 3); (2, 1): 1 x 2; overlap 1 x 1 -> 2 + 2 - 1
    assert hypervolume([[1, 2], [2, 1]], [3, 3]) == 3
    assert hypervolume([[1, 2], [2, 1], [2, 2], [1, 2]], [3, 3]) == 3
    assert hypervolume([[0, 0, 0]], [1, 2, 3]) == 6
    assert hypervolume([[2.0]], [5.0]) == 3


def test_points_not_better_than_the_reference_add_nothing():
    assert hypervolume([[3, 0], [0, 3], [4, 4], [np.inf, 0]], [3, 3]) == 0
    assert hypervolume(np.empty((0, 2)), [1, 1]) == 0


@pytest.mark.parametrize("columns", [2, 3, 4])
def test_agrees_with_the_grid(columns):
    losses = np.random.default_rng(1).random((9, columns)) * 1.2
    assert hypervolume(losses, [1.0] * columns) == pytest.approx(cells(losses, [1.0] * columns), rel=1e-12)


def test_bad_input_raises():
    with pytest.raises(ValueError, match="NaN"):
        hypervolume([[np.nan, 1]], [2, 2])
    with pytest.raises(ValueError, match="2 finite numbers"):
        hypervolume([[1, 1]], [2, np.inf])
    with pytest.raises(ValueError, match="2 finite numbers"):
        hypervolume([[1, 1]], [2, 2, 2])


def test_history_equals_the_hypervolume_of_each_prefix():
    rng = np.random.default_rng(2)
    batches = [rng.random((rng.integers(0, 5), 2)) for _ in range(30)]
    history = hypervolume_history(batches, [0.9, 0.9])
    prefixes = [hypervolume(np.concatenate(batches[: n + 1]), [0.9, 0.9]) for n in range(30)]
    np.testing.assert_allclose(history, prefixes, rtol=1e-12)
    assert (np.diff(history) >= 0).all()
    assert hypervolume_history([], [1, 1]).shape == (0,)
