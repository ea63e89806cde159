"""All values that a report shows about one results folder; nothing is drawn or written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.findings.baselines import best_baselines
from analysis.findings.hypervolume import hypervolume_history
from analysis.findings.knee import knee_index
from analysis.read.constraints import why_none
from analysis.read.objectives import declares_scales, losses, reference_losses
from analysis.read.results import Results
from routing.objectives import Objective, scales_in_words
from routing.pareto import front_order, hypervolume


@dataclass(frozen=True)
class Summary:
    """The findings of one results folder.

    ``front`` holds rows of ``results.points`` (same index) ordered by cost, equal points once; ``knee`` is the index
    of one of them, None without a front; ``history`` has a row per finished trial: number, train_seconds
    (cumulative), hypervolume.
    """

    results: Results
    front: pd.DataFrame
    knee: int | None
    baselines: pd.DataFrame
    hypervolume: float
    reference: NDArray[np.float64]
    history: pd.DataFrame

    @property
    def scale(self) -> str:
        """In words, what the hypervolume is measured in; of an older folder also the number that its reports had."""
        words, objectives = scales_in_words(self.results.objectives), self.results.objectives
        if declares_scales(self.results.study) or not any(objective.in_logs for objective in objectives):
            return words
        plain = tuple(objective.model_copy(update={"scale": "linear"}) for objective in objectives)
        vectors = losses(self.results.candidates, plain)
        former = hypervolume(vectors, reference_losses(vectors, plain))
        return f"{words}; {former:.4g} on a linear scale, as earlier reports of this folder have it"

    @property
    def why_no_front(self) -> str:
        """Why the front is empty: no point has been measured, or none can be on it."""
        if self.results.points.empty:
            return "no trial has finished with every objective measured"
        return why_none(self.results.points, self.results.study.get("constraints"))

    @property
    def states(self) -> dict[str, int]:
        """How many trials are in which state; those of a warm start are another study's and count for nothing."""
        states = self.results.trials.loc[~self.results.warm_started, "state"]
        return {str(state): int(n) for state, n in states.value_counts().items()}

    @property
    def knee_row(self) -> pd.Series | None:
        """The knee's row of points.csv."""
        return None if self.knee is None else self.front.loc[self.knee]

    @property
    def best_row(self) -> pd.Series | None:
        """The front's best point by the first objective."""
        if self.front.empty:
            return None
        return self.front.iloc[int(losses(self.front, self.results.objectives)[:, 0].argmin())]


def front_of(points: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Return the rows on the front of these points alone, ordered by cost, equal points once."""
    costs = [index for index, objective in enumerate(objectives) if objective.is_cost]
    by = next((index for index in costs if index), len(objectives) - 1)
    return points.iloc[front_order(losses(points, objectives), by=by)]


def summarise(results: Results) -> Summary:
    """Compute front, knee, baselines and hypervolume of a results folder."""
    points = results.candidates
    vectors = losses(points, results.objectives)
    reference = reference_losses(vectors, results.objectives)
    front = front_of(points, results.objectives)
    knee = int(front.index[knee_index(losses(front, results.objectives))]) if len(front) else None
    return Summary(
        results=results,
        front=front,
        knee=knee,
        baselines=best_baselines(results),
        hypervolume=hypervolume(vectors, reference),
        reference=reference,
        history=_history(results, vectors, reference),
    )


def _history(results: Results, vectors: NDArray[np.float64], reference: NDArray[np.float64]) -> pd.DataFrame:
    """Return hypervolume after each trial that has points, in order of trial numbers."""
    trials = results.candidates["trial"].to_numpy(dtype=int)
    numbers, starts = np.unique(trials, return_index=True)
    batches = np.split(vectors, starts[1:]) if len(numbers) else []
    seconds = results.trials.set_index("number").get("train_seconds", pd.Series(dtype=float))
    spent = pd.to_numeric(seconds, errors="coerce").fillna(0.0).sort_index().cumsum()
    return pd.DataFrame(
        {
            "number": numbers,
            "train_seconds": spent.reindex(numbers).to_numpy(dtype=float),
            "hypervolume": hypervolume_history(batches, reference),
        }
    )
