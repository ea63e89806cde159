"""The interface of samplers: one class that chooses the next setting of a space, and declares its options.

A study names it (``sampler.name``); ``search_spaces.study.registry.SAMPLERS`` finds it. Modules of samplers import
Optuna lazily, so that checking a study does not import it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict

from routing.config.section import Section

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from routing.constraints import Constraint
    from routing.objectives import Objective
    from search_spaces.search.memory import Memory
    from search_spaces.study.schema import SamplerSection
    from search_spaces.study.space import Space

Setting = dict[str, Any]
"""Values by searched key."""


class Options(Section):
    """Options of a sampler, as a study gives them; the base has none. Each field has type, range and description."""

    model_config = ConfigDict(strict=True)


@dataclass(frozen=True)
class Problem:
    """The search problem: space, objectives (metric, goal, scale, reference) in the order of values, seed, limits."""

    space: Space
    objectives: Sequence[Objective]
    seed: int
    constraints: Sequence[Constraint] = ()


class Sampler(ABC):
    """Base of every sampler.

    ``options_type`` declares its options. ``attempts`` is the number of draws for one proposal; when all of them are
    refused or were tried before, further ones are random.

    Raises:
        InputError: in ``__init__``, for a problem it does not support; the study is then refused before anything runs.
    """

    options_type: ClassVar[type[Options]] = Options
    attempts: ClassVar[int] = 1

    def __init__(self, problem: Problem, options: Any) -> None:
        self.problem, self.options = problem, options

    @classmethod
    def of(
        cls,
        section: SamplerSection,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
    ) -> Sampler:
        """Return the sampler of a study."""
        problem = Problem(space, objectives, section.seed, constraints)
        return cls(problem, cls.options_type.model_validate(section.options))

    @abstractmethod
    def draw(self, index: int, attempt: int, memory: Memory) -> Setting | BaseSampler:
        """Choose one setting, or return an Optuna sampler that does; equal arguments give an equal choice.

        Parameters missing from a setting are drawn at random, inactive ones are ignored.

        Args:
            index: k, the number of the proposal in the study.
            attempt: number of earlier draws for this proposal that were refused or tried before.
            memory: the trials so far.
        """

    def settings(self) -> list[Setting] | None:
        """Return every setting in order where they are known in advance, which ends the study; else None."""
        return None

    def marks(self, position: int) -> dict[str, Any]:
        """Return the system attributes that an Optuna sampler needs on the trial at this position of the memory."""
        return {}

    def next(self, index: int, attempt: int, memory: Memory) -> Setting | BaseSampler:
        """Draw, or choose at random when ``attempts`` are used up."""
        return self.draw(index, attempt, memory) if attempt < self.attempts else self.at_random(index, attempt)

    def at_random(self, index: int, attempt: int) -> BaseSampler:
        """Return the random sampler of this attempt."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=self.seed(index, attempt))

    def noted_violations(self) -> Callable[[FrozenTrial], Sequence[float]] | None:
        """Return the ``constraints_func`` of Optuna's samplers; None without constraints."""
        if not self.problem.constraints:
            return None
        from search_spaces.search.memory import violations_of

        return lambda trial: violations_of(trial) or []

    def seed(self, *parts: int) -> int:
        """Return a seed derived from the study's seed and ``parts``, such as index and attempt."""
        return seed_of(self.problem.seed, *parts)


def seed_of(*parts: int) -> int:
    """Return one 31-bit seed derived from several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(list(parts)).generate_state(1)[0] >> 1)
