"""Two studies against each other in words: which is ahead at which cost, and the ratio of their hypervolumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.findings.indicators import Group
from analysis.read.objectives import metrics
from analysis.words.words import name, shown
from routing.intervals import FEWEST, LEVEL, Interval
from routing.objectives import Objective
from routing.pareto import hypervolume

MOST_STRETCHES = 5
"""Stretches of cost beyond which it is said over which share of the costs a study is ahead."""
MOST_PAIRS = 6
"""Pairs of studies beyond which only the first study is held against the others."""


def verdicts(groups: Sequence[Group], objectives: Sequence[Objective], reference: ArrayLike) -> list[str]:
    """Return sentences on every pair of studies with points: who is ahead where, and the ratio of hypervolumes."""
    there = [group for group in groups if len(group.joint)]
    pairs = list(combinations(there, 2))
    if len(pairs) > MOST_PAIRS:
        pairs = [(there[0], other) for other in there[1:]]
    lines = []
    for one, other in pairs:
        lines += [_ahead(one, other, objectives)] if len(objectives) == 2 else []
        lines.append(_ratio_in_words(one, other, reference))
    return lines


def lead(one: ArrayLike, other: ArrayLike) -> list[tuple[float, float, int]]:
    """Return stretches of the last of two losses, from and to, with who reaches the lower first loss within it.

    1: the first front, -1: the other, 0: both alike. Both fronts (N, 2) hold what they reach for all higher costs, so
    that the last stretch has no end.
    """
    fronts = [np.asarray(front, dtype=float) for front in (one, other)]
    costs = np.unique(np.concatenate([front[:, 1] for front in fronts]))
    best = [np.array([front[front[:, 1] <= cost, 0].min(initial=np.inf) for cost in costs]) for front in fronts]
    signs = np.sign(best[1] - best[0]).astype(int)
    starts = np.flatnonzero(np.concatenate([[True], signs[1:] != signs[:-1]]))
    ends = [*costs[starts[1:]], math.inf]
    return [(float(costs[start]), float(end), int(signs[start])) for start, end in zip(starts, ends, strict=True)]


def hypervolume_ratio(one: Group, other: Group, reference: ArrayLike) -> Interval:
    """Return the hypervolume of a study as a multiple of another's, with a 95 % interval over repeats of both.

    The ratio of geometric means over repeats, Welch's t on their logarithms; without ``FEWEST`` repeats of each, the
    bounds are NaN. A repeat without a front has hypervolume 0; with a 0 among them it is the ratio of arithmetic means,
    and the bounds are NaN. Source: Welch, "The generalization of 'Student's' problem", Biometrika 34 (1947).
    """
    volumes = [_volumes(group, reference) for group in (one, other)]
    if not all(volume > 0 for own in volumes for volume in own):
        means = [float(np.mean(own)) for own in volumes]
        return Interval(means[0] / means[1] if means[1] > 0 else math.nan, math.nan, math.nan)
    logs: list[NDArray[np.float64]] = [np.log(own) for own in volumes]
    ratio = float(np.exp(logs[0].mean() - logs[1].mean()))
    if min(map(len, logs)) < FEWEST:
        return Interval(ratio, math.nan, math.nan)
    errors = [own.var(ddof=1) / len(own) for own in logs]
    if sum(errors) == 0:
        return Interval(ratio, ratio, ratio)
    degrees = sum(errors) ** 2 / sum(error**2 / (len(own) - 1) for error, own in zip(errors, logs, strict=True))
    reach = math.exp(float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * math.sqrt(sum(errors)))
    return Interval(ratio, ratio / reach, ratio * reach)


def _volumes(group: Group, reference: ArrayLike) -> list[float]:
    return [hypervolume(front, reference) for front in group.fronts]


def _ratio_in_words(one: Group, other: Group, reference: ArrayLike) -> str:
    found = hypervolume_ratio(one, other, reference)
    if math.isnan(found.mean):
        return f"No point of {other.name} is better than the reference, so that the hypervolumes have no ratio."
    counts = [len(group.fronts) for group in (one, other)]
    zeros = {group.name: _volumes(group, reference).count(0.0) for group in (one, other)}
    if any(zeros.values()):
        without = " and ".join(
            f"{zeros[group.name]} of {count} of {group.name}"
            for group, count in zip((one, other), counts, strict=True)
            if zeros[group.name]
        )
        why = f"no interval: hypervolume 0, no point better than the reference, in {without}"
    elif math.isnan(found.low):
        why = f"no interval: it takes {FEWEST} repeats of each study, and there are {counts[0]} and {counts[1]}"
    else:
        says = "a clear difference" if not found.low <= 1 <= found.high else "no clear difference"
        why = f"95 % interval [{found.low:.3f}, {found.high:.3f}] over {counts[0]} and {counts[1]} repeats: {says}"
    return f"The hypervolume of {one.name} is {found.mean:.3f} times that of {other.name} ({why})."


def _ahead(one: Group, other: Group, objectives: Sequence[Objective]) -> str:
    """Return who is ahead from which cost to which, and whether one dominates the other."""
    task, cost = objectives
    stretches = lead(one.joint, other.joint)
    who = {1: one.name, -1: other.name}
    signs = {sign for _, _, sign in stretches}
    if signs == {0}:
        return f"The fronts of {one.name} and {other.name} are equal."
    if len(signs - {0}) == 1:
        ahead = 1 if 1 in signs else -1
        where = "at every cost" if 0 not in signs else "and is nowhere worse"
        return f"{who[ahead]} dominates {who[-ahead]}: its {name(task.metric)} is better {where}."
    if len(stretches) > MOST_STRETCHES:
        return _shares(stretches, who, task, cost)
    parts = [f"{who[sign] if sign else 'neither'} {_range(start, end, cost)}" for start, end, sign in stretches]
    return f"The better {name(task.metric)}, by {name(cost.metric)}: {'; '.join(parts)}."


def _shares(stretches: list[tuple[float, float, int]], who: dict[int, str], task: Objective, cost: Objective) -> str:
    """Return over which share of the costs each is ahead, on the objective's scale; the last stretch has no end."""
    whole = stretches[-1][0] - stretches[0][0]
    ahead = {sign: sum(end - start for start, end, own in stretches[:-1] if own == sign) / whole for sign in who}
    parts = [f"{who[sign]} over {share:.0%}" for sign, share in sorted(ahead.items(), key=lambda one: -one[1])]
    last = who.get(stretches[-1][2], "neither")
    scale = "logarithmic " if cost.in_logs else ""
    return (
        f"They take turns: between the lowest and the highest {name(cost.metric)}, on the {scale}axis, "
        f"{name(task.metric)} is better for {' and for '.join(parts)}; "
        f"{last} {_range(stretches[-1][0], math.inf, cost)}."
    )


def _range(start: float, end: float, cost: Objective) -> str:
    low = shown(cost.metric, float(metrics(np.array([[0.0, start]]), [cost, cost])[0, 1]))
    if math.isinf(end):
        return f"from {low} on"
    return f"from {low} to {shown(cost.metric, float(metrics(np.array([[0.0, end]]), [cost, cost])[0, 1]))}"
