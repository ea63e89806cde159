"""``routing bench replay``: early stopping on recorded learning curves of the default study, and searches.

Rules see the recorded trials in a random order, the same for every rule; a rule's budget is training epochs. Only
trials that trained to the end give points, as in a sweep. The searches are those of ``searching``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.bench.tables import BenchTable
from routing.objectives import Objective, volume_of
from search_spaces.bench import searching
from search_spaces.bench.recorded import DIGITS, Recorded, read_recorded
from search_spaces.search.rules import rule_of
from search_spaces.study.load import load_study
from search_spaces.study.schema import SchedulerSection, SweepStudy

RULES = ("moasha", "dominance", "similar_cost", "asha", "none")
FULL_TRAININGS = 40
_RESAMPLES = 10_000
Array = NDArray[np.float64]


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables of rules and of searches."""
    study = load_study("digits")
    assert isinstance(study, SweepStudy)
    trials = read_recorded(DIGITS, [objective.metric for objective in study.objectives])
    rules = compare_rules(trials, study, seeds=20 if quick else 100)
    budget = f"hypervolume after {FULL_TRAININGS} full trainings' worth of epochs, {len(trials)} recorded trials"
    return [BenchTable(f"early stopping: {budget}", RULE_COLUMNS, rules), *searching.bench(quick)]


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
