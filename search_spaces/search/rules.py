"""Early stopping: which trials go on past a rung. One class per rule; ``study.registry.RULES`` names them.

A rung is an epoch ``grace_period * reduction_factor ** k``. All rules work on *ranks* (0 is the best, ties share the
better rank) among the trials that have reached the rung so far.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from routing.quantities import MULTIPLY_ADDS, quantity
from search_spaces.search.ranking import Losses, dominated_by, keep, pareto_rank, rank, rungs, similar
from search_spaces.study.registry import RULES

if TYPE_CHECKING:
    from routing.objectives import Objective
    from search_spaces.study.schema import SchedulerSection


@dataclass(frozen=True)
class Verdict:
    """What a rung decided: rank (0 is best) among ``peers`` trials compared, and whether the trial goes on."""

    rung: int
    rank: int
    peers: int
    goes_on: bool


class Rule(ABC):
    """Base of every rule; it stores the objectives of every trial at every rung.

    A rule implements ``place``, and ``promotes`` where other than the best ``1 / reduction_factor`` go on; ``compared``
    lists the objectives it uses. A rule that never stops a trial has ``stops = False``.

    Args:
        section: rule, grace period, reduction factor.
        objectives: of the study; the first that is not a cost is the task metric.
    """

    stops: ClassVar[bool] = True

    def __init__(self, section: SchedulerSection, objectives: Sequence[Objective]) -> None:
        self.section, self.objectives = section, objectives
        self._seen: dict[int, dict[int, list[float]]] = {}

    @abstractmethod
    def place(self, losses: Losses, index: int) -> tuple[int, int]:
        """Return the rank of a trial (0 is the best) and among how many it was compared, itself included.

        Args:
            losses: (N, M) objectives of all trials at this rung on their scales, lower is better.
            index: row of the trial.
        """

    def promotes(self, place: int, peers: int) -> bool:
        """Return whether the trial of this rank among ``peers`` goes on."""
        return place < keep(peers, self.section.reduction_factor)

    @property
    def task_index(self) -> int:
        """Position of the task metric among the objectives."""
        return next((i for i, o in enumerate(self.objectives) if not quantity(o.metric).is_cost), 0)

    @property
    def cost_index(self) -> int | None:
        """Position of the cost among the objectives, None when there is none."""
        return next(
            (i for i, o in enumerate(self.objectives) if quantity(o.metric).is_cost and i != self.task_index), None
        )

    @property
    def compared(self) -> set[int]:
        """Positions of the objectives that the rule uses; a trial that lacks any other one is still compared."""
        return set(range(len(self.objectives)))

    def rungs(self, max_epochs: int) -> list[int]:
        """Return the epochs after which a trial may be stopped."""
        return rungs(self.section.grace_period, self.section.reduction_factor, max_epochs) if self.stops else []

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
        place, peers = self.place(np.asarray(list(at_rung.values())), list(at_rung).index(number))
        return Verdict(rung=epoch, rank=place, peers=peers, goes_on=self.promotes(place, peers))

    def _losses(self, row: dict[str, Any], cost: float | None) -> list[float] | None:
        """Return the objectives as losses; None when one is missing that this rule compares."""
        losses = []
        for index, objective in enumerate(self.objectives):
            value = row.get(objective.metric)
            if value is None and quantity(objective.metric).unit == MULTIPLY_ADDS:
                value = cost
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                if index in self.compared:
                    return None
                losses.append(math.nan)
            else:
                losses.append(float(objective.loss(value)))
        return losses


class Moasha(Rule):
    """By non-domination rank of all objectives, then by crowding distance."""

    def place(self, losses: Losses, index: int) -> tuple[int, int]:
        """Rank by front, then by crowding, among all."""
        return pareto_rank(losses, index), len(losses)


class Dominance(Rule):
    """By the number of trials that dominate it; non-dominated trials go on."""

    def place(self, losses: Losses, index: int) -> tuple[int, int]:
        """Rank by the number of dominating trials, among all."""
        return rank(dominated_by(losses), index), len(losses)


class Asha(Rule):
    """By the task metric, among all."""

    @property
    def compared(self) -> set[int]:
        """The task metric."""
        return {self.task_index}

    def place(self, losses: Losses, index: int) -> tuple[int, int]:
        """Rank by the task metric, among all."""
        return rank(losses[:, self.task_index], index), len(losses)


class SimilarCost(Rule):
    """By the task metric, among the third of the trials nearest in cost; among all where none is an objective."""

    @property
    def compared(self) -> set[int]:
        """The task metric and the cost."""
        return {self.task_index} | ({self.cost_index} if self.cost_index is not None else set())

    def place(self, losses: Losses, index: int) -> tuple[int, int]:
        """Rank by the task metric, among those of similar cost."""
        group = np.arange(len(losses))
        if self.cost_index is not None:
            group = similar(losses[:, self.cost_index], index, self.section.reduction_factor)
        return rank(losses[group, self.task_index], int(np.flatnonzero(group == index)[0])), len(group)


class NoStopping(Rule):
    """Every trial is trained to its end."""

    stops: ClassVar[bool] = False

    def place(self, losses: Losses, index: int) -> tuple[int, int]:
        """The best of one: without rungs there is nothing to compare."""
        return 0, 1


def rule_of(section: SchedulerSection, objectives: Sequence[Objective]) -> Rule:
    """Return the rule that a study names."""
    rule: Rule = RULES.get(section.name)(section, objectives)
    return rule
