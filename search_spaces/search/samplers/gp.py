"""``gp``: a Gaussian process per objective, and the expected improvement of the hypervolume to the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from search_spaces.search.memory import key_of
from search_spaces.search.sampler import Options, Problem, Sampler, Setting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from optuna.samplers import BaseSampler

    from search_spaces.search.encoding import Encoding
    from search_spaces.search.memory import Curve, Memory, Past
    from search_spaces.search.surrogate import GaussianProcess as Process

    Array = NDArray[np.float64]

NEIGHBOURS = 5
RANDOM_EVERY = 8
"""One in this many proposals is random: a surrogate that is wrong early on proposes only where it expects improvement,
and early stopping hides how other settings would have ended. Interleaved as in SMAC (Hutter et al., LION 2011)."""
_CLOSE_BY = 40
"""While fewer trials have ended and some parameters are conditional, candidates are neighbours of the front: of most
branches there are hardly data, and far from all data the improvement that a process expects is its prior's."""
_CANDIDATES = 256
_ROUNDS = 6
_KEPT = 24


class GpOptions(Options):
    """Options of the Gaussian process."""

    n_startup_trials: int = Field(default=10, ge=1, le=10_000, description="Finished trials before it models.")


class GaussianProcess(Sampler):
    """Losses are on the objectives' scales. A stopped trial enters with its extrapolated final values, a running one
    with what is expected of it."""

    options_type: ClassVar[type[Options]] = GpOptions
    attempts: ClassVar[int] = 3
    options: GpOptions

    def draw(self, index: int, attempt: int, memory: Memory) -> Setting | BaseSampler:
        """Return the setting of the highest expected improvement; one proposal in ``RANDOM_EVERY`` is random."""
        if index % RANDOM_EVERY == RANDOM_EVERY - 1:
            return self.at_random(index, attempt)
        return self.best(self.seed(index, attempt), memory)

    def best(self, seed: int, memory: Memory) -> Setting:
        """Return the setting of the highest expected improvement that was not tried before; a random one at first."""
        import numpy as np

        from search_spaces.search.encoding import Encoding

        encoding, random = Encoding(self.problem.space), np.random.default_rng(seed)
        if not encoding.names:  # constants alone: there is one setting
            return encoding.setting(np.empty(0))
        known = [(encoding.cube(past.labels), losses, past.violations) for past, losses in self.known(memory)]
        ended = [(point, losses) for point, losses, _ in known if losses is not None]
        broken = [violations for _, losses, violations in known if losses is not None]
        if len(ended) < self.options.n_startup_trials:
            return encoding.setting(random.random(len(encoding.names)))
        running = [point for point, losses, _ in known if losses is None]
        points, losses = np.array([point for point, _ in ended]), np.array([row for _, row in ended])
        is_early = len(ended) < _CLOSE_BY and any(p.when for p in self.problem.space.parameters.values())
        search = _Search(encoding, points, losses, broken, running, self.problem, without_outliers=is_early)
        candidates, gains = search.close_by(random) if is_early else search.everywhere(random)
        for place in np.argsort(-gains, kind="stable"):
            setting = encoding.setting(candidates[place])
            if key_of(setting) not in memory.seen:
                return setting
        return encoding.setting(candidates[int(gains.argmax())])

    def known(self, memory: Memory) -> Iterator[tuple[Past, list[float] | None]]:
        """Yield the training data of the processes as losses; a running trial has none yet."""
        from optuna.trial import TrialState

        trials = list(memory.trials())
        curves = [{epoch: self._losses(values) for epoch, values in past.curve.items()} for past in trials]
        finished = [
            (curve, self._losses(past.values))
            for past, curve in zip(trials, curves, strict=True)
            if past.values is not None and curve
        ]
        for past, curve in zip(trials, curves, strict=True):
            losses = self._losses(past.values) if past.values is not None else None
            if past.state == TrialState.PRUNED:
                losses = at_the_end(curve, finished)
            if losses is not None or past.state == TrialState.RUNNING:
                yield past, losses

    def _losses(self, values: Sequence[float]) -> list[float]:
        return [float(o.loss(value)) for o, value in zip(self.problem.objectives, values, strict=True)]


class _Search:
    """Candidates and their expected improvement, given what is known of the ended and the running trials.

    Args:
        points, losses: (N, P) in the unit cube and (N, M) of trials that ended.
        broken: by how much each of them breaks the constraints, None where that is not known.
        running: points (P,) of those that run.
        without_outliers: see ``_without_outliers``.
    """

    def __init__(
        self,
        encoding: Encoding,
        points: Array,
        losses: Array,
        broken: list[list[float] | None],
        running: list[Array],
        problem: Problem,
        without_outliers: bool,
    ) -> None:
        import numpy as np

        from routing.objectives import reference_of
        from routing.pareto import is_on_front
        from search_spaces.search.improvement import boxes
        from search_spaces.search.surrogate import GaussianProcess

        self.encoding = encoding
        features, reference = encoding.features(points), reference_of(problem.objectives)
        reference = np.where(np.isnan(reference), losses.max(axis=0), reference)
        self.processes: list[Process] = [
            GaussianProcess(features, encoding.owner, _without_outliers(column) if without_outliers else column)
            for column in losses.T
        ]
        if running:
            beside = encoding.features(np.array(running))
            for process in self.processes:
                process.believe(beside)
            features = np.concatenate([features, beside])
        # the front of what the processes believe: the best of many noisy measurements is lucky
        front = np.stack([process.predict(features)[0] for process in self.processes], axis=1)
        allowed = np.array([one is None or max(one, default=0.0) <= 0 for one in broken])
        front = front[np.concatenate([allowed, np.ones(len(running), dtype=bool)])]
        front = front[is_on_front(front)]
        self.lower, self.upper = boxes(front, reference)
        self.good = points[is_on_front(losses)] if not allowed.any() else points[allowed][is_on_front(losses[allowed])]
        measured = [place for place, one in enumerate(broken) if one]
        violated = np.array([broken[place] for place in measured])
        own = encoding.features(points[measured]) if measured else np.empty((0, 0))
        self.limits: list[Process] = [GaussianProcess(own, encoding.owner, column) for column in violated.T]

    def close_by(self, random: np.random.Generator) -> tuple[Array, Array]:
        """Return neighbours of the front (C, P) and their gains (C,)."""
        candidates = self._changed(self.good, random, 4 * _CANDIDATES, 0.15)
        return candidates, self.gains(candidates)

    def everywhere(self, random: np.random.Generator) -> tuple[Array, Array]:
        """Return candidates and their gains, the best ones changed again and again in smaller steps."""
        import numpy as np

        anywhere = random.random((2 * _CANDIDATES, self.good.shape[1]))
        candidates = np.concatenate([anywhere, self._changed(self.good, random, _CANDIDATES, 0.1)])
        gains = self.gains(candidates)
        for turn in range(_ROUNDS):
            kept = np.argsort(-gains, kind="stable")[:_KEPT]
            changed = self._changed(candidates[kept], random, _CANDIDATES, 0.3 * 0.5**turn)
            candidates = np.concatenate([candidates[kept], changed])
            gains = np.concatenate([gains[kept], self.gains(changed)])
        return candidates, gains

    def gains(self, candidates: Array) -> Array:
        """Return the logarithm of the expected improvement (C,)."""
        import numpy as np
        from scipy.special import log_ndtr

        from search_spaces.search.improvement import log_improvement

        features = self.encoding.features(candidates)
        means, deviations = zip(*(process.predict(features) for process in self.processes), strict=True)
        gains = log_improvement(np.stack(means, axis=1), np.stack(deviations, axis=1), self.lower, self.upper)
        for limit in self.limits:  # the improvement counts with the probability that the constraint holds
            mean, deviation = limit.predict(features)
            gains = gains + log_ndtr(-mean / deviation)
        return gains

    def _changed(self, points: Array, random: np.random.Generator, count: int, step: float) -> Array:
        """Return ``count`` points of ``points`` with some parameters changed, from one of them to all."""
        import numpy as np

        width = points.shape[1]
        old = points[random.integers(len(points), size=count)]
        which = random.random((count, width)) < np.maximum(1 / width, random.random((count, 1)) ** 2)
        which[np.arange(count), random.integers(width, size=count)] = True
        moved = old + np.where(which, random.standard_normal((count, width)) * step, 0.0)
        anew = which & self.encoding.is_choice & (random.random((count, width)) < 0.5)
        return np.clip(np.where(anew, random.random((count, width)), moved), 0.0, 1.0)


def _without_outliers(losses: Array) -> Array:
    """Return losses (N,), those far behind the median brought up: how bad a failure is says little of the front."""
    import numpy as np

    middle = np.median(losses)
    return np.minimum(losses, middle + 0.5 * (middle - losses.min()))


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
