"""The knee of fronts whose bend can be seen with the eye."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.findings.knee import knee_index, scaled
from routing.objectives import Objective, losses_of


def test_the_bend_is_found():
    # from (0, 10) down to (2, 1), then flat to (10, 0): scaled sums 1, .3, .65, 1
    assert knee_index([[0, 10], [2, 1], [6, 0.5], [10, 0]]) == 1


def test_costs_are_compared_on_their_scale():
    # log10 cost 0, 1, 2.78, 3 scaled to 0, .33, .93, 1; losses .9, .3, .1, 0: sums 1, .67, 1.04, 1
    points = [[0.1, 1], [0.7, 10], [0.9, 600], [1.0, 1000]]
    task = Objective(metric="val_accuracy", goal="maximize")
    for scale, knee in (("log", 1), ("linear", 1)):
        cost = Objective(metric="flops", goal="minimize", scale=scale)
        assert knee_index(losses_of(points, (task, cost))) == knee
    points[1][1] = 300  # linear: sums 1, .63, .71, 1; log: 1, 1.16, 1.04, 1
    cost = Objective(metric="flops", goal="minimize")
    assert knee_index(losses_of(points, (task, cost))) in (0, 3)


def test_short_and_flat_fronts():
    assert knee_index([[3, 4]]) == 0
    assert knee_index([[0, 1], [1, 0]]) == 0
    assert knee_index([[1, 1], [1, 1]]) == 0
    with pytest.raises(ValueError, match="empty front"):
        knee_index(np.empty((0, 2)))


def test_columns_are_scaled_to_their_range():
    np.testing.assert_allclose(scaled([[0, 0], [1, 5], [2, 10]])[:, 1], [0, 0.5, 1])
