"""Early stopping and samplers, replayed on recorded learning curves of the default study.

* Rules: the recorded trials in a random order, the same for every rule; a rule's budget is training epochs. Only trials
  that trained to the end give points, as in a sweep.
* Samplers: they may propose settings that were not recorded, so a regression on the recording predicts the result
  (extremely randomised trees; the table's title gives its cross-validation error).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from routing.bench.tables import BenchTable
from routing.objectives import Objective, volume_of
from search_spaces.bench.recorded import DIGITS, Recorded, read_recorded
from search_spaces.search.proposer import Proposer
from search_spaces.search.rules import rule_of
from search_spaces.study.load import load_study
from search_spaces.study.parameters import is_constant
from search_spaces.study.schema import SamplerSection, SchedulerSection, SweepStudy
from search_spaces.study.space import Space

RULES = ("moasha", "dominance", "similar_cost", "asha", "none")
SAMPLERS = ("auto", "tpe", "nsga2", "qmc", "random")
FULL_TRAININGS = 40
RANDOM_TRIALS = 150
MODEL_TRIALS = 100
WORKERS = 2
_RESAMPLES = 10_000
Array = NDArray[np.float64]


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables of rules and samplers."""
    study = load_study("digits")
    assert isinstance(study, SweepStudy)
    trials = read_recorded(DIGITS, [objective.metric for objective in study.objectives])
    rules = compare_rules(trials, study, seeds=20 if quick else 100)
    model = Surrogate(trials, study)
    samplers = compare_samplers(model, study, seeds=2 if quick else 20)
    budget = f"hypervolume after {FULL_TRAININGS} full trainings' worth of epochs, {len(trials)} recorded trials"
    quality = (
        f"trials to reach random search's hypervolume of {RANDOM_TRIALS}, {WORKERS} at a time; R2 {model.score:.2f}"
    )
    return [
        BenchTable(f"early stopping: {budget}", RULE_COLUMNS, rules),
        BenchTable(f"samplers: {quality}", SAMPLER_COLUMNS, samplers),
    ]


RULE_COLUMNS = {
    "rule": "rule",
    "hypervolume": "hypervolume / none",
    "low": "95 % from",
    "high": "to",
    "lead_low": "default leads from",
    "lead_high": "to",
    "finished": "trainings finished",
    "full_trainings": "full trainings to reach none",
    "n": "orders",
}
SAMPLER_COLUMNS = {
    "sampler": "sampler",
    "trials": "trials (median)",
    "trials_p90": "90 %",
    "hypervolume_40": "hypervolume of 40 / random",
    "low": "95 % from",
    "high": "to",
    "ask_seconds": "seconds per ask",
    "n": "seeds",
}


@dataclass(frozen=True)
class Trace:
    """Hypervolume after each finished trial, and the epochs or seconds spent until then; trials started in all."""

    spent: list[float]
    volumes: list[float]
    started: int

    def at(self, budget: float) -> float:
        """Return the hypervolume that ``budget`` bought."""
        return max((v for e, v in zip(self.spent, self.volumes, strict=True) if e <= budget), default=0.0)

    def reaching(self, volume: float) -> float | None:
        """Return what was spent when ``volume`` was reached, None when it was not."""
        return next((e for e, v in zip(self.spent, self.volumes, strict=True) if v >= volume), None)


def replay_rule(
    trials: Sequence[Recorded], section: SchedulerSection, objectives: tuple[Objective, ...], budget: int
) -> Trace:
    """Train the trials in this order until ``budget`` epochs are spent."""
    rule = rule_of(section, objectives)
    spent = started = 0
    points: list[list[float]] = []
    epochs: list[float] = []
    volumes: list[float] = []
    for number, trial in enumerate(trials):
        if spent >= budget:
            break
        started += 1
        for row in trial.curve:
            spent += 1
            verdict = rule.judge(number, row, len(trial.curve), trial.expected_flops)
            if verdict is not None and not verdict.goes_on:
                break
        else:
            points.append([trial.curve[-1][objective.metric] for objective in objectives])
            epochs.append(spent)
            volumes.append(volume_of(points, objectives))
    return Trace(epochs, volumes, started)


def compare_rules(
    trials: Sequence[Recorded], study: SweepStudy, seeds: int, rules: Sequence[str] = RULES
) -> list[dict[str, Any]]:
    """Return one row per rule; hypervolumes are relative to the mean of no stopping, intervals over random orders."""
    budget = FULL_TRAININGS * len(trials[0].curve)
    section = study.scheduler
    traces: dict[str, list[Trace]] = {name: [] for name in rules}
    for seed in range(seeds):
        order = [trials[i] for i in np.random.default_rng(seed).permutation(len(trials))]
        for name in rules:
            named = section.model_copy(update={"name": name})
            # twice the budget, to see when a rule reaches the hypervolume of no stopping
            traces[name].append(replay_rule(order, named, study.objectives, 2 * budget))
    plain = np.array([trace.at(budget) for trace in traces["none"]])
    own = np.array([trace.at(budget) for trace in traces[section.name]])
    rows = []
    for name in rules:
        volumes = np.array([trace.at(budget) for trace in traces[name]])
        low, high = interval(volumes / plain.mean())
        lead = interval((own - volumes) / plain.mean())
        reached = [trace.reaching(target) for trace, target in zip(traces[name], plain, strict=True)]
        trainings = [None if epochs is None else epochs / len(trials[0].curve) for epochs in reached]
        rows.append(
            {
                "rule": name,
                "hypervolume": float(volumes.mean() / plain.mean()),
                "low": low,
                "high": high,
                "lead_low": lead[0],
                "lead_high": lead[1],
                "finished": float(np.mean([sum(e <= budget for e in t.spent) for t in traces[name]])),
                "full_trainings": quantile_within(trainings, 0.5, 2 * FULL_TRAININGS),
                "n": seeds,
            }
        )
    return rows


def quantile_within(needed: Sequence[float | None], share: float, limit: float) -> float | str:
    """Return a quantile of what runs needed; words where it falls on runs (None) that had not arrived at ``limit``."""
    ordered = np.sort([np.inf if one is None else one for one in needed])
    around = ordered[: int(np.ceil(share * (len(ordered) - 1))) + 1]
    if np.isinf(around[-1]):
        return f"not within {limit:g}"
    return float(np.quantile(np.minimum(ordered, around[-1]), share))


def interval(values: Array) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of ``values`` (n,)."""
    means = np.random.default_rng(0).choice(values, size=(_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


class Surrogate:
    """Answers any setting of the study's space from the recording: final task metric and realised FLOPs."""

    def __init__(self, trials: Sequence[Recorded], study: SweepStudy) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        self.space = Space(study.space, study.base)
        self.metrics = [objective.metric for objective in study.objectives]
        self.features = np.array([self._encode(trial.setting) for trial in trials])
        last = np.array([[trial.curve[-1][metric] for metric in self.metrics] for trial in trials])
        self.targets = np.where(np.array(self.metrics) == "flops", np.log(np.maximum(last, 1e-12)), last)
        self._trees = ExtraTreesRegressor(n_estimators=100, random_state=0).fit(self.features, self.targets)

    @cached_property
    def score(self) -> float:
        """R2 of the task metric under five-fold cross-validation."""
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.model_selection import KFold, cross_val_score

        trees = ExtraTreesRegressor(n_estimators=100, random_state=0)
        return float(
            cross_val_score(
                trees, self.features, self.targets[:, 0], cv=KFold(5, shuffle=True, random_state=0), scoring="r2"
            ).mean()
        )

    def __call__(self, values: dict[str, Any]) -> list[float]:
        """Return the objectives of a setting."""
        found = self._trees.predict([self._encode(self.space.labels(values))])[0]
        return [float(np.exp(v)) if m == "flops" else float(v) for m, v in zip(self.metrics, found, strict=True)]

    def _encode(self, labels: dict[str, Any]) -> list[float]:
        """Return choices one-hot, ranges as numbers (in logs where the space says so); inactive ones are -1."""
        row: list[float] = []
        for name, parameter in self.space.parameters.items():
            if is_constant(parameter):
                continue
            if parameter.choice is not None:
                row += [float(labels.get(name) == label) for label in parameter.choice]
            elif name not in labels:
                row.append(-1.0)
            else:
                row.append(float(np.log(labels[name]) + 10) if parameter.log else float(labels[name]))
        return row


def compare_samplers(
    model: Surrogate, study: SweepStudy, seeds: int, names: Sequence[str] = SAMPLERS
) -> list[dict[str, Any]]:
    """Return one row per sampler: trials until random search's mean hypervolume, hypervolume of 40 trials."""
    random_runs = [run_sampler(model, study, "random", seed, RANDOM_TRIALS) for seed in range(seeds)]
    target = float(np.mean([volumes[-1] for volumes, _ in random_runs]))
    baseline = float(np.mean([volumes[39] for volumes, _ in random_runs]))
    rows = []
    for name in names:
        runs, limit = random_runs, RANDOM_TRIALS
        if name != "random":
            limit = MODEL_TRIALS
            runs = [run_sampler(model, study, name, seed, limit, target) for seed in range(seeds)]
        needed = [next((i + 1 for i, v in enumerate(volumes) if v >= target), None) for volumes, _ in runs]
        at_40 = np.array([volumes[min(39, len(volumes) - 1)] for volumes, _ in runs])
        low, high = interval(at_40 / baseline)
        rows.append(
            {
                "sampler": name,
                "trials": quantile_within(needed, 0.5, limit),
                "trials_p90": quantile_within(needed, 0.9, limit),
                "hypervolume_40": float(at_40.mean() / baseline),
                "low": low,
                "high": high,
                "ask_seconds": float(np.mean([seconds for _, seconds in runs])),
                "n": seeds,
            }
        )
    return rows


def run_sampler(
    model: Surrogate, study: SweepStudy, name: str, seed: int, trials: int, until: float = float("inf")
) -> tuple[list[float], float]:
    """Return the hypervolume after each trial, and the mean seconds per ask; past ``until``, 40 trials are enough."""
    proposer = Proposer(model.space, study.objectives, SamplerSection.model_validate({"name": name, "seed": seed}))
    fixed = [model.space.labels(setting) for setting in study.enqueue]
    waiting: list[tuple[int, list[float]]] = []
    points: list[list[float]] = []
    volumes: list[float] = []
    asked, asking = 0, 0.0
    while len(volumes) < trials:
        while len(waiting) < WORKERS and asked < trials:
            begun = time.perf_counter()
            proposal = proposer.propose(lambda values: None, fixed[asked] if asked < len(fixed) else None)
            asking += time.perf_counter() - begun
            asked += 1
            if proposal is None:
                return volumes, asking / asked
            waiting.append((proposal.handle, model(proposal.values)))
        handle, values = waiting.pop(0)
        proposer.observe(handle, TrialState.COMPLETE, values)
        points.append(values)
        volumes.append(volume_of(points, study.objectives))
        if len(volumes) >= FULL_TRAININGS and volumes[-1] >= until:
            break
    return volumes, asking / asked
