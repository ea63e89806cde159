"""Which points are really on a front, from trainings under several seeds and the images they were tested on.

Dimensions: P points, S seeds of a point, M objectives, N images, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from routing.intervals import LEVEL, Interval
from routing.pareto import hypervolume, is_on_front

DRAWS = 1000


@dataclass(frozen=True)
class Repeats:
    """What the trainings of one point reached.

    losses: (S, M), lower is better, the task's first. correct: (S, N), one where the image was right, when the task's
    loss is minus (``-1``) the mean of them; None where it is another metric or not known image by image.
    """

    losses: NDArray[np.float64]
    correct: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Membership:
    """``probability`` (P,) of being on the front, and the front's hypervolume with its 95 % bootstrap interval."""

    probability: NDArray[np.float64]
    hypervolume: Interval


def membership(points: Sequence[Repeats], reference: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Membership:
    """Return how probable it is that each point belongs to the front, by a bootstrap over seeds and images.

    Every draw takes the seeds of each point, and the images (the same ones for all points), with replacement;
    deviations of seeds are widened by sqrt(S / (S - 1)), without which few repeats look surer than they are. Points
    that are not trained twice have no spread over seeds.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 6 and 13.

    Args:
        reference: (M,) losses of the hypervolume's reference point.
    """
    random = np.random.default_rng(seed)
    images = {one.correct.shape[1] for one in points if one.correct is not None}
    weights = None
    if len(images) == 1:
        (count,) = images
        weights = random.multinomial(count, np.full(count, 1 / count), size=draws).T / count
    drawn = np.stack([_draws(one, weights, draws, random) for one in points], axis=1)
    on_front = np.array([is_on_front(losses) for losses in drawn])
    corner = np.asarray(reference, dtype=float)
    volumes = [hypervolume(losses, corner) for losses in drawn]
    mean = hypervolume(np.array([one.losses.mean(axis=0) for one in points]), corner)
    ends = np.quantile(volumes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Membership(on_front.mean(axis=0), Interval(mean, float(ends[0]), float(ends[1])))


def _draws(
    one: Repeats, weights: NDArray[np.float64] | None, draws: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return the mean losses of a point in every draw (D, M)."""
    seeds = len(one.losses)
    losses = np.repeat(one.losses[None], draws, axis=0)  # (D, S, M)
    if weights is not None and one.correct is not None:
        losses[:, :, 0] = -(one.correct.astype(float) @ weights).T
    mean = losses.mean(axis=1)
    if seeds < 2:
        return mean
    counts = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    taken = np.einsum("ds,dsm->dm", counts, losses)
    widened: NDArray[np.float64] = mean + math.sqrt(seeds / (seeds - 1)) * (taken - mean)
    return widened
