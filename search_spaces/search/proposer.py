"""How the next trial is chosen: a ``Proposer`` is asked for settings and told what became of them.

It works in memory and knows neither disk nor Ray: the ledger is replayed into it at the start. The k-th proposal of a
study is drawn with a generator seeded by (seed, k), so that an interrupted study goes on where it stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.study.parameters import at_quantile, from_label, is_constant
from search_spaces.study.schema import COST_METRICS, GRID_POINTS
from search_spaces.study.space import Space

if TYPE_CHECKING:
    from search_spaces.study.schema import Objective, SamplerSection

Curve = dict[int, list[float]]
"""Values of the objectives by epoch."""
NEIGHBOURS = 5
GP_TRIALS = 150
"""``auto`` asks a Gaussian process up to this many finished trials, then TPE: the process costs cubic time."""
RANDOM_EVERY = 4
"""One in so many proposals of the Gaussian process is random: a model that is wrong early on asks for nothing else, and
early stopping hides from it what the rest would have reached. Hutter et al., SMAC (LION 2011), interleave them too."""
STARTUP_TRIALS = 10
"""Finished trials before a model-based sampler stops drawing at random."""
_MODEL_ATTEMPTS = {"gp": 1, "tpe": 3, "nsga2": 3}
_MAX_ATTEMPTS = 200
_REPEATS_ACCEPTED_AFTER = 100


@dataclass(frozen=True)
class Proposal:
    """A setting to run. ``index`` counts proposals; ``handle`` is what ``Proposer.observe`` wants back."""

    values: dict[str, Any]
    index: int | None
    handle: int
    refused: str | None = None


class Proposer:
    """Chooses settings of a space from what earlier ones gave.

    Args:
        space: what may be chosen.
        objectives: their goals, in the order of the values told.
        section: sampler, seed, options.
        samples: False when every setting is given (an ablation); nothing is learned then.
    """

    def __init__(
        self, space: Space, objectives: Sequence[Objective], section: SamplerSection, samples: bool = True
    ) -> None:
        self.space, self.section = space, section
        self.directions = [objective.goal for objective in objectives]
        self.samples = samples
        self.next_index = 0
        self.exhausted: str | None = None
        self._memory = optuna.create_study(directions=self.directions, sampler=RandomSampler(seed=section.seed))
        self._is_cost = [objective.metric in COST_METRICS for objective in objectives]
        self._observed: dict[int, Curve] = {}
        self._seen: set[str] = set()
        self._refused: dict[str, str] = {}
        self._grid = space.grid(section.options.get("points", GRID_POINTS)) if section.name == "grid" else None

    def replay(
        self, labels: dict[str, Any], state: TrialState, values: Sequence[float] | None, curve: Curve | None = None
    ) -> None:
        """Add a trial of the past, given as the ledger stores it; one outside the space is left out."""
        if not self.samples or not fits(self.space, labels):
            return
        distributions = self.space.distributions()
        self._seen.add(_key(self.space.restore(labels)))
        told = list(values) if values is not None and state == TrialState.COMPLETE else None
        past = create_trial(
            state=state,
            values=told,
            params=labels,
            distributions={name: distributions[name] for name in labels},
            system_attrs=self._generation(len(self._memory.get_trials(deepcopy=False))),
        )
        self._memory.add_trial(past)
        self._observed[len(self._memory.get_trials(deepcopy=False)) - 1] = curve or {}

    def observe(
        self, handle: int, state: TrialState, values: Sequence[float] | None, curve: Curve | None = None
    ) -> None:
        """Tell what became of a proposal; ``curve`` holds its values epoch by epoch, for a PRUNED one to its stop."""
        self._observed[handle] = curve or {}
        self._memory.tell(handle, list(values) if state == TrialState.COMPLETE and values is not None else None, state)

    def propose(
        self, accept: Callable[[dict[str, Any]], str | None], fixed: dict[str, Any] | None = None, number: int = 0
    ) -> Proposal | None:
        """Return the next setting, or None when there is nothing left (``exhausted`` says why).

        Args:
            accept: returns why a setting may not run, or None. Refused ones are drawn again, untrained.
            fixed: ledger values that are given (an enqueued setting); refused, it is returned with ``refused`` set.
            number: of the enqueued setting, which seeds what it leaves open.
        """
        if fixed is not None:
            values, handle = self._ask(RandomSampler(seed=self._seed(number, _MAX_ATTEMPTS)), fixed)
            self._seen.add(_key(values))
            return Proposal(values, None, handle, accept(values))
        if self._grid is not None:
            return self._propose_from_grid(self._grid, accept)
        index, reason = self.next_index, None
        for attempt in range(_MAX_ATTEMPTS):
            values, handle = self._draw(index, attempt)
            repeated = _key(values) in self._seen and attempt < _REPEATS_ACCEPTED_AFTER
            reason = "the setting has been tried" if repeated else accept(values)
            if reason is None:
                return self._proposal(values, index, handle)
            self._memory.tell(handle, state=TrialState.FAIL if repeated else TrialState.PRUNED)
        self.exhausted = f"{_MAX_ATTEMPTS} proposals in a row were refused; the last one: {reason}"
        return None

    def _propose_from_grid(
        self, grid: list[dict[str, Any]], accept: Callable[[dict[str, Any]], str | None]
    ) -> Proposal | None:
        """Return the first combination that has not been tried, by whatever sampler."""
        for setting in grid:
            key = _key(setting)
            if key in self._seen or key in self._refused:
                continue
            reason = accept(setting)
            if reason is None:
                values, handle = self._ask(RandomSampler(seed=0), self.space.labels(setting))
                return self._proposal(values, self.next_index, handle)
            self._refused[key] = reason
        refusal = next(reversed(self._refused.values()), None)
        ending = f"; the last one was refused: {refusal}" if refusal is not None else ""
        self.exhausted = f"every combination of the grid has been proposed{ending}"
        return None

    def _proposal(self, values: dict[str, Any], index: int, handle: int) -> Proposal:
        self._seen.add(_key(values))
        self.next_index = index + 1
        return Proposal(values, index, handle)

    def current(self) -> str:
        """Return the name of the sampler in charge now (``auto`` resolves to ``gp`` or ``tpe``)."""
        if self.section.name != "auto":
            return self.section.name
        return "gp" if len(self._observed) < self.section.options.get("gp_trials", GP_TRIALS) else "tpe"

    def _draw(self, index: int, attempt: int) -> tuple[dict[str, Any], int]:
        name = self.current()
        if name == "qmc" and attempt == 0:
            return self._ask(RandomSampler(seed=0), self.space.labels(self._quasi_random(index)))
        seed = self._seed(index, attempt)
        explores = name == "gp" and index % RANDOM_EVERY == RANDOM_EVERY - 1
        if explores or attempt >= _MODEL_ATTEMPTS.get(name, 0):
            return self._ask(RandomSampler(seed=seed))
        if name == "gp":
            return self._ask(RandomSampler(seed=seed), self._ask_gaussian_process(seed))
        return self._ask(self._sampler(name, seed))

    def _ask(self, sampler: BaseSampler, fixed: dict[str, Any] | None = None) -> tuple[dict[str, Any], int]:
        self._memory.sampler = sampler
        if fixed is not None:
            self._memory.enqueue_trial(fixed)
        trial = self._memory.ask()
        return self.space.sample(trial), trial.number

    def _sampler(self, name: str, seed: int) -> BaseSampler:
        options = self.section.options if self.section.name == name else {}
        if name == "nsga2":
            return NSGAIISampler(seed=seed, **{"population_size": 20, **options})
        defaults: dict[str, Any] = {"constant_liar": True, "n_startup_trials": STARTUP_TRIALS}
        if options.get("group"):  # which is a way of the multivariate estimator
            defaults["multivariate"] = True
        return TPESampler(seed=seed, **{**defaults, **options})

    def _ask_gaussian_process(self, seed: int) -> dict[str, Any]:
        """Return a setting of the flattened space; a stopped trial counts with what it would have reached.

        Costs enter as logarithms: on a linear scale all cheap models look alike, and the improvement expected of yet
        another one never vanishes.
        """
        distributions = self.space.distributions()
        startup = self.section.options.get("n_startup_trials", STARTUP_TRIALS)
        sampler = GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        flat = optuna.create_study(directions=self.directions, sampler=sampler)
        for past, values in self._known_to_the_model():
            flat.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if values is not None else TrialState.RUNNING,
                    values=values,
                    params=self.space.flattened(past.params),
                    distributions=distributions,
                )
            )
        return dict(flat.ask(fixed_distributions=distributions).params)

    def _known_to_the_model(self) -> Iterator[tuple[FrozenTrial, list[float] | None]]:
        """Yield what the Gaussian process learns from, costs as logarithms; a trial that runs has no values yet."""
        trials = self._memory.get_trials(deepcopy=False)
        curves = {
            number: {epoch: self._with_log_costs(values) for epoch, values in curve.items()}
            for number, curve in list(self._observed.items())  # in one step: trials end meanwhile, in another thread
        }
        finished = [
            (curves[past.number], self._with_log_costs(past.values))
            for past in trials
            if past.state == TrialState.COMPLETE and curves.get(past.number)
        ]
        for past in trials:
            values = self._with_log_costs(past.values) if past.state == TrialState.COMPLETE else None
            if past.state == TrialState.PRUNED:
                values = at_the_end(curves.get(past.number) or {}, finished)
            if values is not None or past.state == TrialState.RUNNING:
                yield past, values

    def _with_log_costs(self, values: Sequence[float]) -> list[float]:
        return [math.log(max(v, 1e-12)) if cost else v for v, cost in zip(values, self._is_cost, strict=True)]

    def _quasi_random(self, index: int) -> dict[str, Any]:
        from scipy.stats.qmc import Sobol

        names = [name for name, p in self.space.parameters.items() if not is_constant(p)]
        engine = Sobol(len(names), scramble=self.section.options.get("scramble", True), rng=self.section.seed)
        if index:
            engine.fast_forward(index)
        point = dict(zip(names, engine.random(1)[0], strict=True))
        return self.space.decide(lambda name, parameter: at_quantile(parameter, float(point[name])))

    def _seed(self, *parts: int) -> int:
        return int(np.random.SeedSequence([self.section.seed, *parts]).generate_state(1)[0] >> 1)

    def _generation(self, position: int) -> dict[str, Any]:
        """Return the mark by which NSGA-II finds the generation of a trial."""
        if self.section.name != "nsga2":
            return {}
        size = self.section.options.get("population_size", 20)
        return {NSGAIISampler._get_generation_key(): position // size}


def at_the_end(curve: Curve, finished: Sequence[tuple[Curve, Sequence[float]]]) -> list[float] | None:
    """Return what a stopped trial would have reached: its last values and what others gained from there.

    Taken as they are, the values of a first epoch would make everything look bad that was stopped, and the same setting
    look noisy: the model would ask for it again and again. Each objective gains the median of the ``NEIGHBOURS``
    finished trials that were nearest to it at that epoch; fewer than three are no sample, and nothing is gained.

    Args:
        curve: values of the stopped trial by epoch; without any, None is returned.
        finished: curve and final values of every finished trial.
    """
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


def fits(space: Space, labels: dict[str, Any], whole: bool = True) -> bool:
    """Return whether a setting, given as the ledger stores it, is one of the space; not ``whole``, it may have gaps."""
    distributions = space.distributions()
    if not all(name in distributions and _holds(distributions[name], label) for name, label in labels.items()):
        return False
    active = space.decide(lambda name, p: from_label(p, labels[name]) if name in labels else at_quantile(p, 0.0))
    decided = space.labels(active).keys()
    return labels.keys() == decided if whole else labels.keys() <= decided


def _holds(distribution: optuna.distributions.BaseDistribution, label: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(label)))
    except (ValueError, TypeError):
        return False


def _key(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=repr)
