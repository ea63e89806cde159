"""Intervals against hand-computed answers, and how often they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from routing.intervals import bounded_interval, mean_interval, share_interval


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


def test_an_interval_never_leaves_the_range_of_its_metric() -> None:
    assert bounded_interval([0.6, 1.2], 0, 1.5) == (pytest.approx(0.9), 0.6, 1.2)  # of two values it is their range
    found = bounded_interval([0.99, 0.999, 1.0], 0, 1)
    assert 0 < found.low < found.mean < found.high < 1
    # by hand: mean 0.99633, half width of t 0.013684, on the logit scale 0.013684 / (0.99633 * 0.00367) = 3.746
    assert (found.low, found.high) == pytest.approx((0.8651, 0.999913), abs=2e-4)
    assert bounded_interval([1.0, 1.0, 1.0], 0, 1) == (1, 1, 1)
    wide = bounded_interval([1, 2, 3], 0, math.inf)
    assert (wide.low, wide.high) == pytest.approx((2 / math.exp(1.242069), 2 * math.exp(1.242069)), rel=1e-5)
    assert bounded_interval([1, 2, 3], -math.inf, math.inf) == mean_interval([1, 2, 3])
    assert math.isnan(bounded_interval([0.5], 0, 1).low)
    centred = bounded_interval([0.49, 0.5, 0.51], 0, 1)  # far from the bounds it is Student's
    assert (centred.low, centred.high) == pytest.approx(mean_interval([0.49, 0.5, 0.51])[1:], abs=1e-4)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_bounded_interval_covers_the_mean_near_the_bound(seeds: int) -> None:
    random = np.random.default_rng(0)
    draws = random.beta(97, 3, size=(2000, seeds))  # accuracies of 97 %, give or take 1.7
    bounds = [bounded_interval(row, 0, 1) for row in draws]
    assert sum(found.low <= 0.97 <= found.high for found in bounds) / 2000 == pytest.approx(0.95, abs=0.02)
    assert all(found.low >= 0 and found.high <= 1 for found in bounds)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_covers_the_mean_at_the_number_of_seeds_people_use(seeds: int) -> None:
    random = np.random.default_rng(0)
    bounds = [mean_interval(random.normal(size=seeds)) for _ in range(2000)]
    assert sum(found.low <= 0 <= found.high for found in bounds) / 2000 == pytest.approx(0.95, abs=0.015)
