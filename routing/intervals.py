"""Intervals: of a mean over repeats, and of a share over images."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and its 95 % interval; the bounds are NaN where there is only one value."""

    mean: float
    low: float
    high: float


def mean_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean of values (n,) with Student's t interval; NaN bounds for n = 1, all NaN for n = 0."""
    sample = np.asarray(values, dtype=float)
    if not len(sample):
        return Interval(math.nan, math.nan, math.nan)
    mean = float(sample.mean())
    if len(sample) == 1:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + level) / 2, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half)


FEWEST = 3
"""Fewest repeats whose interval is one; below, it is the range of the values."""


def bounded_interval(values: ArrayLike, low: float, high: float, level: float = LEVEL) -> Interval:
    """Return the mean of values (n,) in [low, high] with an interval that stays there.

    Student's t interval on the logit scale of the range by the delta method (on the log scale where only ``low`` is
    finite, as it is where neither is), around the mean. Below three values: their range, which is no interval.

    Source: delta method and logit interval, Agresti, "Categorical Data Analysis" (3rd ed., 2013), 1.4 and 16.1.
    """
    sample = np.asarray(values, dtype=float)
    if 1 < len(sample) < FEWEST:
        return Interval(float(sample.mean()), float(sample.min()), float(sample.max()))
    mean, lower, upper = mean_interval(sample, level)
    half = upper - mean
    if not half > 0 or not math.isfinite(low):  # also NaN: a single value
        return Interval(mean, lower, min(upper, high))
    if math.isfinite(high):
        share, width = (mean - low) / (high - low), high - low
        reach = half / width / (share * (1 - share))
        ends = (_logistic(math.log(share / (1 - share)) + sign * reach) for sign in (-1, 1))
        lower, upper = (low + width * end for end in ends)
        return Interval(mean, lower, upper)
    reach = half / (mean - low)
    return Interval(mean, low + (mean - low) * math.exp(-reach), low + (mean - low) * math.exp(reach))


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def share_interval(share: float, n: int, level: float = LEVEL) -> Interval:
    """Return a share of ``n`` images with Wilson's interval: the sampling of images, not of seeds.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if n <= 0:
        return Interval(share, math.nan, math.nan)
    z = float(stats.norm.ppf((1 + level) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, centre - half, centre + half)
