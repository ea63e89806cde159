"""Which configurations get one more seed: those whose place on the front the seeds leave open, and their rivals.

A race in rounds: a place that is decided costs nothing more. Sources: Maron and Moore, "Hoeffding Races" (NIPS 1994);
Birattari et al., "A Racing Algorithm for Configuring Metaheuristics" (GECCO 2002); Kalyanakrishnan et al., "PAC Subset
Selection in Stochastic Multi-armed Bandits" (ICML 2012) for training the rival beside the point in doubt.

Dimensions: P points, S seeds of a point, M objectives, D draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from routing.intervals import LEVEL

FEWEST = 3
"""Seeds that every point has before the race begins."""
_DRAWS = 400
Losses = NDArray[np.float64]


def doubts(points: Sequence[Losses], *, seed: int = 0) -> NDArray[np.float64]:
    """Return how much another seed of each point (P,) is wanted: 0 where its place, and that of its rivals, is decided.

    The doubt of a point is the smaller of the probabilities that it is on the front and that it is not, unless that
    is at most 1 - 0.95; a rival of a point in doubt has its doubt, by the share of draws in which it dominates it. The
    mean of every point is drawn from Student's t distribution with the spread over seeds that all points have in
    common: three seeds alone say little of their own. Test images are the same ones under every seed and are not drawn.

    Args:
        points: losses (S, M) of every point, lower is better, with at least two seeds.
    """
    random = np.random.default_rng(seed)
    freedom = sum(len(one) - 1 for one in points)
    spread = np.sqrt(sum(((one - one.mean(axis=0)) ** 2).sum(axis=0) for one in points) / freedom)
    seeds = np.array([len(one) for one in points])
    means = np.array([one.mean(axis=0) for one in points])
    errors = random.standard_t(freedom, size=(_DRAWS, *means.shape)) * spread / np.sqrt(seeds)[:, None]
    drawn = means + errors
    on_front, dominates = _dominance(drawn)
    own = np.minimum(on_front, 1 - on_front)
    own[own <= 1 - LEVEL] = 0
    shares = np.where(dominates > 1 - LEVEL, dominates, 0)  # (P, P): the row's point dominates the column's
    return np.maximum(own, (shares * own).max(axis=1))


def _dominance(drawn: Losses) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return in which share of draws (D, P, M) each point is on the front (P,), and dominates another (P, P)."""
    free, count = np.zeros(drawn.shape[1]), np.zeros((drawn.shape[1], drawn.shape[1]))
    for losses in drawn:
        one, other = losses[:, None], losses[None]
        dominates = (one <= other).all(axis=2) & (one < other).any(axis=2)
        free += ~dominates.any(axis=0)
        count += dominates
    return free / len(drawn), count / len(drawn)


def race(
    counts: dict[str, int],
    budget: int,
    most: int,
    train: Callable[[dict[str, int]], Sequence[tuple[str, Losses]]],
    say: Callable[[str], None],
) -> None:
    """Train in rounds, each one more seed for the configurations in doubt, until none is left or the budget is spent.

    Args:
        counts: configuration -> seeds of the first round.
        budget: trainings in all.
        most: seeds that no configuration exceeds.
        train: given the seeds of every configuration, trains what is missing and returns the points that have two
            trainings or more, each as its configuration and its losses (S, M).
        say: called with a line after every round.
    """
    while True:
        points = train(counts)
        wanted = dict.fromkeys(counts, 0.0)
        for (name, _), doubt in zip(points, doubts([losses for _, losses in points]) if points else (), strict=True):
            wanted[name] = max(wanted[name], float(doubt))
        spent, count = sum(counts.values()), sum(doubt > 0 for doubt in wanted.values())
        more = next_seeds(counts, wanted, budget - spent, most)
        state = f"adaptive: {count or 'none'} of {len(counts)} configurations in doubt, {spent} of {budget} trainings"
        say(state if more == counts else f"{state} so far")
        if more == counts:
            return
        counts = more


def next_seeds(counts: dict[str, int], wanted: dict[str, float], left: int, most: int) -> dict[str, int]:
    """Return the seeds of each configuration after one more round, at most ``left`` more in all.

    Args:
        wanted: configuration -> the largest doubt of its points.
    """
    in_doubt = [name for name in counts if wanted[name] > 0 and counts[name] < most]
    in_doubt.sort(key=lambda name: (-wanted[name], counts[name]))
    chosen = set(in_doubt[: max(left, 0)])
    return {name: count + (name in chosen) for name, count in counts.items()}
