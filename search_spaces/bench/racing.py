"""``python -m search_spaces.bench.racing RESULTS``: what ``confirm --adaptive`` saves, simulated.

The mean and the spread over seeds that every arm of an ablation (or configuration of a confirmation) had are taken for
true; trainings are drawn from normal distributions with these.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from routing.files.results_folder import ARM, COMPLETE, TRIALS_FILE
from routing.intervals import mean_interval
from routing.pareto import is_on_front
from search_spaces.racing import FEWEST, doubts, race
from search_spaces.study.load import load_study


@dataclass(frozen=True)
class Truth:
    """Configurations that are known: mean loss and its spread over seeds (P,), cost (P,)."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    cost: NDArray[np.float64]

    def train(self, place: int, random: np.random.Generator) -> list[float]:
        """Return the losses of one more training (M,)."""
        return [random.normal(self.mean[place], self.spread[place]), self.cost[place]]

    def on_front(self) -> NDArray[np.bool_]:
        """Return which configurations are on the front (P,)."""
        return is_on_front(np.stack([self.mean, self.cost], axis=1))


@dataclass(frozen=True)
class Simulated:
    """Seeds a configuration, share of wrong places; of the places taken for decided: share, and how many are right.

    ``covered``: share of the 95 % intervals of accuracy that hold the truth.
    """

    seeds: float
    wrong: float
    decided: float
    right: float
    covered: float


def recorded(results: Path) -> Truth:
    """Return what the arms of a results folder with two objectives and several seeds each have reached."""
    objectives = load_study(results).objectives
    trials = pd.read_csv(results / TRIALS_FILE)
    arms = trials[trials["state"] == COMPLETE].groupby(ARM)
    losses, cost = (objectives[place].sign * arms[objectives[place].metric].mean() for place in (0, 1))
    return Truth(losses.to_numpy(), arms[objectives[0].metric].std().to_numpy(), cost.to_numpy())


def simulate(truth: Truth, seeds: int, *, adaptive: bool, repeats: int, seed: int = 0) -> Simulated:
    """Confirm known configurations again and again, under equal seeds or in a race with the same budget."""
    random, rows = np.random.default_rng(seed), []
    names = [str(place) for place in range(len(truth.mean))]
    for _ in range(repeats):
        trained: list[list[list[float]]] = [[] for _ in names]

        def train(counts: dict[str, int], trained: list[list[list[float]]] = trained) -> list[tuple[str, NDArray]]:
            for place, name in enumerate(names):
                trained[place] += [truth.train(place, random) for _ in range(counts[name] - len(trained[place]))]
            return [(name, np.array(one)) for name, one in zip(names, trained, strict=True)]

        if adaptive:
            race(dict.fromkeys(names, FEWEST), seeds * len(names), 4 * seeds, train, say=lambda line: None)
        else:
            train(dict.fromkeys(names, seeds))
        rows.append(_measured(truth, trained))
    return Simulated(*np.nanmean(rows, axis=0).tolist())


def _measured(truth: Truth, trained: list[list[list[float]]]) -> tuple[float, ...]:
    """Return the fields of ``Simulated`` of one repeat."""
    decided = doubts([np.array(one) for one in trained]) == 0
    right = is_on_front([np.mean(one, axis=0) for one in trained]) == truth.on_front()
    intervals = [mean_interval([losses[0] for losses in one]) for one in trained]
    covered = [one.low <= mean <= one.high for one, mean in zip(intervals, truth.mean, strict=True)]
    seeds = float(np.mean([len(one) for one in trained]))
    of_decided = float(right[decided].mean()) if decided.any() else np.nan
    return seeds, float((~right).mean()), float(decided.mean()), of_decided, float(np.mean(covered))


if __name__ == "__main__":
    known = recorded(Path(sys.argv[1]))
    for adaptive in (False, True):
        for count in (4, 5, 6, 8, 10):
            print("adaptive" if adaptive else "equal", count, simulate(known, count, adaptive=adaptive, repeats=100))
