"""Expected improvement of the hypervolume, exact for independent normal losses, as a logarithm.

Source: Yang, Emmerich, Deutz and Bäck, "Efficient computation of expected hypervolume improvement using box
decomposition algorithms", J. Global Optimization 75 (2019); in logarithms, which keep their slope where the improvement
is next to nothing: Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization",
NeurIPS 2023. Dimensions: F points of a front, M objectives, B boxes, C candidates.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr

Array = NDArray[np.float64]


def boxes(front: Array, reference: Array) -> tuple[Array, Array]:
    """Return the lower and upper corners (B, M) of disjoint boxes: what no row of ``front`` (F, M) dominates.

    They end at the reference (M,), and are open towards better values.
    """
    front = front[(front < reference).all(axis=1)]
    if front.shape[1] == 1:
        best = min(front[:, 0].min(initial=math.inf), reference[0])
        return np.array([[-math.inf]]), np.array([[best]])
    levels = np.unique(front[:, -1])
    lower, upper = [], []
    for bottom, top in zip([-math.inf, *levels], [*levels, reference[-1]], strict=True):
        low, high = boxes(front[front[:, -1] <= bottom][:, :-1], reference[:-1])
        lower.append(np.column_stack([low, np.full(len(low), bottom)]))
        upper.append(np.column_stack([high, np.full(len(high), top)]))
    return np.concatenate(lower), np.concatenate(upper)


def log_improvement(means: Array, deviations: Array, lower: Array, upper: Array) -> Array:
    """Return the logarithm of the expected improvement (C,) of candidates with these means and deviations (C, M).

    Args:
        lower, upper: (B, M) corners of the boxes that are not dominated yet.
    """
    total = np.zeros((len(means), len(lower)))
    for objective in range(means.shape[1]):
        mean, deviation = means[:, objective, None], deviations[:, objective, None]
        ends, place = np.unique(np.concatenate([lower[:, objective], upper[:, objective]]), return_inverse=True)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            gains = np.log(deviation) + _log_gain((ends[None] - mean) / deviation)
        gains[:, np.isneginf(ends)] = -math.inf
        low, high = gains[:, place[: len(lower)]], gains[:, place[len(lower) :]]
        with np.errstate(invalid="ignore", divide="ignore"):
            total += high + np.log1p(-np.exp(np.minimum(low - high, 0.0)))
    total = np.where(np.isnan(total), -math.inf, total)
    return np.asarray(np.logaddexp.reduce(total, axis=1))


def _log_gain(z: Array) -> Array:
    """Return log(density(z) + z * probability(z)), the expectation of (z - normal)+ in logarithms."""
    log_density = -0.5 * z * z - 0.5 * math.log(2 * math.pi)
    near = np.log(np.maximum(np.exp(log_density) + z * ndtr(z), 1e-300))
    behind = np.minimum(z, -1.0)
    share = -behind * math.sqrt(math.pi / 2) * erfcx(-behind / math.sqrt(2))
    far = log_density + np.where(behind < -1e3, -2 * np.log(-behind), np.log1p(-np.minimum(share, 1 - 1e-15)))
    return np.where(z > -1.0, near, far)
