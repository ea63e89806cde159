"""``gp``: Optuna's Gaussian process and expected hypervolume improvement over the flattened space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from search_spaces.search.sampler import Options, Problem, Sampler, Setting
from search_spaces.study.parameters import from_label

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from search_spaces.search.memory import Curve, Memory, Past

NEIGHBOURS = 5
RANDOM_EVERY = 4
"""One in this many proposals is random: a surrogate that is wrong early on proposes only where it expects improvement,
and early stopping hides how other settings would have ended. Interleaved as in SMAC (Hutter et al., LION 2011)."""


class GpOptions(Options):
    """Options of the Gaussian process."""

    n_startup_trials: int = Field(default=10, ge=1, le=10_000, description="Finished trials before it models.")


class GaussianProcess(Sampler):
    """Costs enter as logarithms: on a linear scale all cheap models look alike, and the expected improvement of one
    more never vanishes. A stopped trial enters with its extrapolated final values."""

    options_type: ClassVar[type[Options]] = GpOptions
    options: GpOptions

    def __init__(self, problem: Problem, options: GpOptions) -> None:
        super().__init__(problem, options)

    def draw(self, index: int, attempt: int, memory: Memory) -> Setting | BaseSampler:
        """Return the setting of the highest expected improvement; one proposal in ``RANDOM_EVERY`` is random."""
        if index % RANDOM_EVERY == RANDOM_EVERY - 1:
            return self.at_random(index, attempt)
        return self.best(self.seed(index, attempt), memory)

    def best(self, seed: int, memory: Memory) -> Setting:
        """Return a setting of the flattened space, inactive parameters included."""
        import optuna
        from optuna.trial import TrialState, create_trial

        space = self.problem.space
        distributions = space.distributions()
        sampler = optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=self.options.n_startup_trials, warn_independent_sampling=False
        )
        flat = optuna.create_study(directions=memory.directions, sampler=sampler)
        for past, values in self.known(memory):
            flat.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if values is not None else TrialState.RUNNING,
                    values=values,
                    params=space.flattened(past.labels),
                    distributions=distributions,
                )
            )
        labels: dict[str, Any] = flat.ask(fixed_distributions=distributions).params
        return {name: from_label(space.parameters[name], label) for name, label in labels.items()}

    def known(self, memory: Memory) -> Iterator[tuple[Past, list[float] | None]]:
        """Yield the training data of the process, costs as logarithms; a running trial has no values yet."""
        from optuna.trial import TrialState

        trials = list(memory.trials())
        curves = [{epoch: self._with_log_costs(values) for epoch, values in past.curve.items()} for past in trials]
        finished = [
            (curve, self._with_log_costs(past.values))
            for past, curve in zip(trials, curves, strict=True)
            if past.values is not None and curve
        ]
        for past, curve in zip(trials, curves, strict=True):
            values = self._with_log_costs(past.values) if past.values is not None else None
            if past.state == TrialState.PRUNED:
                values = at_the_end(curve, finished)
            if values is not None or past.state == TrialState.RUNNING:
                yield past, values

    def _with_log_costs(self, values: Sequence[float]) -> list[float]:
        return [
            math.log(max(v, 1e-12)) if objective.in_logs else v
            for v, objective in zip(values, self.problem.objectives, strict=True)
        ]


def at_the_end(curve: Curve, finished: Sequence[tuple[Curve, Sequence[float]]]) -> list[float] | None:
    """Extrapolate a stopped trial's learning curve: its last values plus the later gain of similar finished trials.

    Unextrapolated, the values of a first epoch would make every stopped setting look bad, and repeats of a setting look
    noisy: the process would propose it again and again. The gain of each objective is the median over the
    ``NEIGHBOURS`` finished trials nearest to it at that epoch; it is 0 with fewer than three finished trials.

    Args:
        curve: values of the stopped trial by epoch; None is returned for an empty one.
        finished: curve and final values of every finished trial.
    """
    import numpy as np

    if not curve:
        return None
    epoch = max(curve)
    there = [(passed[epoch], values) for passed, values in finished if epoch in passed]
    if len(there) < 3:
        return list(curve[epoch])
    then, last = np.array([a for a, _ in there]), np.array([b for _, b in there])
    reached = []
    for objective, value in enumerate(curve[epoch]):
        nearest = np.abs(then[:, objective] - value).argsort(kind="stable")[:NEIGHBOURS]
        reached.append(float(value + np.median(last[nearest, objective] - then[nearest, objective])))
    return reached
