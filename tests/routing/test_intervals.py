"""Intervals against hand-computed answers, and how often they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from routing.intervals import mean_interval, share_interval


def test_mean_interval_by_hand() -> None:
    # mean 2, sd 1, n 3: t(.975, 2) = 4.302653, half width 4.302653 / sqrt(3) = 2.484138
    mean, low, high = mean_interval([1, 2, 3])
    assert (mean, low, high) == pytest.approx((2, -0.484138, 4.484138), abs=1e-6)
    assert mean_interval([2, 2, 2]) == (2, 2, 2)
    assert mean_interval([5])[0] == 5
    assert math.isnan(mean_interval([5]).low)
    assert math.isnan(mean_interval([5]).high)
    assert math.isnan(mean_interval([]).mean)


def test_share_interval_by_hand() -> None:
    # Wilson for 8 of 10: 0.490 to 0.943
    assert share_interval(0.8, 10)[1:] == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert share_interval(1.0, 10).high == pytest.approx(1.0)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_covers_the_mean_at_the_number_of_seeds_people_use(seeds: int) -> None:
    random = np.random.default_rng(0)
    bounds = [mean_interval(random.normal(size=seeds)) for _ in range(2000)]
    assert sum(found.low <= 0 <= found.high for found in bounds) / 2000 == pytest.approx(0.95, abs=0.015)
