"""Early stopping: which trials go on past a rung.

A rung is an epoch ``grace_period * reduction_factor ** k``. All rules work on *ranks* (0 is the best, ties share the
better rank) among the trials that have reached the rung, whatever the order they came in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.study.schema import COST_METRICS

if TYPE_CHECKING:
    from search_spaces.study.schema import Objective, SchedulerSection

Losses = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What a rung decided: rank (0 is best) among ``peers`` trials compared, and whether the trial goes on."""

    rung: int
    rank: int
    peers: int
    goes_on: bool


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
    """Return the indices of the third of the trials that is nearest in log cost, ``index`` included.

    At least ``reduction_factor`` trials, so that there is a group to compare in. Equal distances count as equally near.
    """
    distance = np.abs(np.log(np.maximum(costs, 1e-12)) - math.log(max(costs[index], 1e-12)))
    wanted = min(len(costs), max(math.ceil(len(costs) / 3), math.ceil(reduction_factor)))
    radius = np.sort(distance)[wanted - 1]
    return np.flatnonzero(distance <= radius + 1e-9)


def dominated_by(losses: Losses) -> NDArray[np.intp]:
    """Return by how many other rows each row of ``losses`` (N, M) is dominated."""
    not_worse = (losses[:, None, :] <= losses[None, :, :]).all(axis=2)
    better = (losses[:, None, :] < losses[None, :, :]).any(axis=2)
    return np.logical_and(not_worse, better).sum(axis=0)


def domination_rank(losses: Losses) -> NDArray[np.intp]:
    """Return the front each row of ``losses`` (N, M) lies on: 0 for those nothing dominates, 1 for the next, ..."""
    not_worse = (losses[:, None, :] <= losses[None, :, :]).all(axis=2)
    better = (losses[:, None, :] < losses[None, :, :]).any(axis=2)
    dominates = np.logical_and(not_worse, better)
    ranks = np.full(len(losses), -1, dtype=np.intp)
    level = 0
    while (ranks < 0).any():
        left = ranks < 0
        on_front = left & ~dominates[left].any(axis=0)
        ranks[on_front] = level
        level += 1
    return ranks


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
    fronts = domination_rank(losses)
    same = np.flatnonzero(fronts == fronts[index])
    spread = crowding(losses[same])
    mine = spread[same == index][0]
    return int((fronts < fronts[index]).sum() + (spread > mine).sum())


@dataclass
class Rule:
    """The memory of a rule: what every trial showed at every rung.

    Args:
        section: which rule, grace period, reduction factor.
        objectives: of the study; the first that is no cost is the task metric.
    """

    section: SchedulerSection
    objectives: Sequence[Objective]
    _seen: dict[int, dict[int, list[float]]] = field(default_factory=dict)

    @property
    def task_index(self) -> int:
        """Position of the task metric among the objectives."""
        return next((i for i, o in enumerate(self.objectives) if o.metric not in COST_METRICS), 0)

    @property
    def cost_index(self) -> int | None:
        """Position of the cost among the objectives, None when there is none."""
        return next(
            (i for i, o in enumerate(self.objectives) if o.metric in COST_METRICS and i != self.task_index), None
        )

    @property
    def _compared(self) -> set[int]:
        """Positions of the objectives that the rule looks at."""
        if self.section.name == "asha":
            return {self.task_index}
        if self.section.name == "similar_cost":
            return {self.task_index} | ({self.cost_index} if self.cost_index is not None else set())
        return set(range(len(self.objectives)))

    def rungs(self, max_epochs: int) -> list[int]:
        """Return the epochs after which a trial may be stopped."""
        if self.section.name == "none":
            return []
        return rungs(self.section.grace_period, self.section.reduction_factor, max_epochs)

    def judge(self, number: int, row: dict[str, Any], max_epochs: int, cost: float | None = None) -> Verdict | None:
        """Note the row of an epoch, see ``note``; return the verdict when the epoch is a rung, else None."""
        return self._verdict(number, int(row["epoch"])) if self.note(number, row, max_epochs, cost) else None

    def note(self, number: int, row: dict[str, Any], max_epochs: int, cost: float | None = None) -> bool:
        """Remember the row of an epoch when the epoch is a rung; return whether it is one.

        Args:
            number: the trial.
            row: its history row; it has ``epoch`` and the objectives.
            max_epochs: epochs of this trial when nothing stops it.
            cost: expected FLOPs, used where the row has none.
        """
        epoch = int(row.get("epoch", 0))
        losses = self._losses(row, cost) if epoch in self.rungs(max_epochs) else None
        if losses is None:
            return False
        self._seen.setdefault(epoch, {})[number] = losses
        return True

    def _verdict(self, number: int, epoch: int) -> Verdict:
        at_rung = self._seen[epoch]
        losses = np.asarray(list(at_rung.values()))
        index = list(at_rung).index(number)
        eta = self.section.reduction_factor
        if self.section.name == "moasha":
            peers, place = len(losses), pareto_rank(losses, index)
        elif self.section.name == "dominance":
            peers, place = len(losses), rank(dominated_by(losses), index)
        else:
            group = np.arange(len(losses))
            if self.section.name == "similar_cost" and self.cost_index is not None:
                group = similar(np.exp(losses[:, self.cost_index]), index, eta)
            task = losses[group, self.task_index]
            peers, place = len(group), rank(task, int(np.flatnonzero(group == index)[0]))
        return Verdict(rung=epoch, rank=place, peers=peers, goes_on=place < keep(peers, eta))

    def _losses(self, row: dict[str, Any], cost: float | None) -> list[float] | None:
        """Return the objectives as losses, cost in logs; None when one is missing that this rule compares."""
        losses = []
        for index, objective in enumerate(self.objectives):
            value = row.get(objective.metric)
            if value is None and objective.metric.startswith("flops"):
                value = cost
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                if index in self._compared:
                    return None
                losses.append(math.nan)
            elif index == self.cost_index:
                losses.append(math.log(max(value, 1e-12)) * (1 if objective.goal == "minimize" else -1))
            else:
                losses.append(-float(value) if objective.goal == "maximize" else float(value))
        return losses
