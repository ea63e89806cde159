"""Which points are on a front: by hand where it is certain, by what is true where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from routing.membership import Repeats, membership

REFERENCE = (0.0, 10.0)


def point(accuracies: list[float], cost: float) -> Repeats:
    return Repeats(np.array([[-value, cost] for value in accuracies]))


def test_certain_points_have_probability_one_or_zero() -> None:
    points = [point([0.9, 0.9], 5), point([0.8, 0.8], 2), point([0.7, 0.7], 6)]
    found = membership(points, REFERENCE, draws=50)
    assert found.probability.tolist() == [1, 1, 0]
    assert found.hypervolume == (pytest.approx(0.9 * 5 + 0.8 * 3), pytest.approx(6.9), pytest.approx(6.9))


def test_equal_models_are_on_the_front_half_of_the_time_for_the_dearer_one() -> None:
    random = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        same = [list(random.normal(0.9, 0.01, size=5)) for _ in range(2)]
        shares.append(membership([point(same[0], 2), point(same[1], 3)], REFERENCE, draws=100).probability)
    cheap, costly = np.mean(shares, axis=0)
    assert cheap == 1
    assert costly == pytest.approx(0.5, abs=0.05)


def test_few_images_leave_doubt_that_seeds_alone_do_not_show() -> None:
    random = np.random.default_rng(1)
    right = random.random((2, 100)) < np.array([[0.90], [0.88]])
    repeats = [
        Repeats(np.array([[-row.mean(), cost]] * 3), np.array([row] * 3))
        for row, cost in zip(right, (3.0, 2.0), strict=True)
    ]
    sure = membership([Repeats(one.losses) for one in repeats], REFERENCE, draws=300)
    doubtful = membership(repeats, REFERENCE, draws=300)
    assert set(sure.probability) <= {0.0, 1.0}
    assert 0.02 < doubtful.probability[0] < 0.98
    assert doubtful.hypervolume.low < sure.hypervolume.low


def test_hypervolume_interval_covers_the_truth() -> None:
    random, inside = np.random.default_rng(2), 0
    for _ in range(200):
        points = [point(list(random.normal(value, 0.01, size=5)), cost) for value, cost in ((0.8, 2), (0.9, 5))]
        found = membership(points, REFERENCE, draws=200).hypervolume
        inside += found.low <= 6.9 <= found.high
    assert inside / 200 > 0.85  # the percentile bootstrap of five seeds is known to be a little short of 95 %
