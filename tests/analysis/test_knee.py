"""The knee of fronts whose bend can be seen with the eye."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.findings.knee import knee_index, scaled


def test_the_bend_is_found():
    # from (0, 10) down to (2, 1), then flat to (10, 0): scaled sums 1, .3, .65, 1
    assert knee_index([[0, 10], [2, 1], [6, 0.5], [10, 0]]) == 1


def test_costs_are_compared_by_their_logarithm():
    # log10 cost 0, 1, 2, 3 scaled to 0, 1/3, 2/3, 1; losses .9, .5, .1, 0: sums 1, .89, .78, 1
    front = np.array([[0.9, 1], [0.5, 10], [0.1, 100], [0.0, 1000]])
    assert knee_index(front, log_columns=[1]) == 2
    # without logarithms the cost of 100 is next to nothing too, and 10 even less: sums 1, .56, .21, 1
    assert knee_index(front) == 2
    assert knee_index(np.array([[0.9, 1], [0.3, 10], [0.1, 600], [0.0, 1000]])) == 1


def test_short_and_flat_fronts():
    assert knee_index([[3, 4]]) == 0
    assert knee_index([[0, 1], [1, 0]]) == 0
    assert knee_index([[1, 1], [1, 1]]) == 0
    with pytest.raises(ValueError, match="empty front"):
        knee_index(np.empty((0, 2)))


def test_a_cost_of_zero_is_scaled_linearly():
    np.testing.assert_allclose(scaled([[0, 0], [1, 5], [2, 10]], [1])[:, 1], [0, 0.5, 1])
