"""Ranks at a rung, as pure functions: 0 is the best, ties share the better rank. N trials, M objectives, all losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.pareto import non_domination_rank

Losses = NDArray[np.float64]


def rungs(grace_period: int, reduction_factor: float, max_epochs: int) -> list[int]:
    """Return the epochs at which trials are compared; none in the second half, where stopping saves little."""
    found: list[int] = []
    level = 0
    while 2 * (epoch := round(grace_period * reduction_factor**level)) <= max_epochs:
        if not found or epoch > found[-1]:
            found.append(epoch)
        level += 1
    return found


def rank(losses: NDArray[Any], index: int) -> int:
    """Return how many of ``losses`` (N,) are strictly better (lower) than the one at ``index``."""
    return int((losses < losses[index]).sum())


def keep(peers: int, reduction_factor: float) -> int:
    """Return how many of ``peers`` go on; all of them while there are fewer than one group."""
    return peers if peers < reduction_factor else max(1, math.floor(peers / reduction_factor))


def similar(costs: Losses, index: int, reduction_factor: float) -> NDArray[np.intp]:
    """Return the indices of the third of the trials that is nearest in cost (N,) on its scale, ``index`` included.

    At least ``reduction_factor`` trials, so that there is a group to compare in. Equal distances count as equally near.
    """
    distance = np.abs(costs - costs[index])
    wanted = min(len(costs), max(math.ceil(len(costs) / 3), math.ceil(reduction_factor)))
    radius = np.sort(distance)[wanted - 1]
    return np.flatnonzero(distance <= radius + 1e-9)


def dominated_by(losses: Losses) -> NDArray[np.intp]:
    """Return by how many other rows each row of ``losses`` (N, M) is dominated."""
    not_worse = (losses[:, None, :] <= losses[None, :, :]).all(axis=2)
    better = (losses[:, None, :] < losses[None, :, :]).any(axis=2)
    return np.logical_and(not_worse, better).sum(axis=0)


def crowding(losses: Losses) -> Losses:
    """Return the crowding distance of each row of ``losses`` (N, M), all on one front; its ends are infinite."""
    count, objectives = losses.shape
    distance = np.zeros(count)
    for column in range(objectives):
        order = np.argsort(losses[:, column], kind="stable")
        ordered = losses[order, column]
        span = ordered[-1] - ordered[0]
        distance[order[[0, -1]]] = np.inf
        if span > 0 and count > 2:
            distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distance


def pareto_rank(losses: Losses, index: int) -> int:
    """Return how many rows are strictly better than ``index``: on a better front, or less crowded on the same one."""
    fronts = non_domination_rank(losses)
    same = np.flatnonzero(fronts == fronts[index])
    spread = crowding(losses[same])
    mine = spread[same == index][0]
    return int((fronts < fronts[index]).sum() + (spread > mine).sum())
