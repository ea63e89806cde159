"""Ask and tell: a ``Proposer`` draws the next setting from the study's sampler and observes the results.

It works in memory, without disk or Ray: the ledger is replayed into it at the start. The k-th proposal of a study is
drawn with a generator seeded by (seed, k), so that an interrupted study continues with the same proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from routing.errors import InputError, nearest
from search_spaces.search.memory import Curve, Memory, key_of
from search_spaces.search.sampler import Sampler, Setting, seed_of
from search_spaces.study.parameters import at_quantile, contains, from_label
from search_spaces.study.registry import SAMPLERS
from search_spaces.study.space import Space

if TYPE_CHECKING:
    from routing.constraints import Constraint
    from routing.objectives import Objective
    from search_spaces.study.schema import SamplerSection

_MAX_ATTEMPTS = 200
_REPEATS_ACCEPTED_AFTER = 100

Accept = Callable[[dict[str, Any]], str | None]
"""Returns why a setting may not run, or None."""


@dataclass(frozen=True)
class Proposal:
    """A setting to run. ``index`` counts proposals; ``handle`` is the argument of ``Proposer.observe``."""

    values: dict[str, Any]
    index: int | None
    handle: int
    refused: str | None = None


class Proposer:
    """Chooses settings of a space, given the results of earlier ones.

    Args:
        space: the searched space.
        objectives: their goals, in the order of observed values.
        section: sampler, seed, options.
        samples: False when every setting is given (an ablation); nothing is learned then.
        constraints: what a trial has to keep to.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        section: SamplerSection,
        samples: bool = True,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self.space, self.section = space, section
        self.samples, self.constraints = samples, list(constraints)
        self.next_index = 0
        self.exhausted: str | None = None
        self.sampler: Sampler = SAMPLERS.get(section.name).of(section, space, objectives, self.constraints)
        self.memory = Memory(space, [objective.goal for objective in objectives], section.seed)
        self._refused: dict[str, str] = {}
        self._settings = self.sampler.settings()

    def replay(
        self,
        labels: dict[str, Any],
        state: TrialState,
        values: Sequence[float] | None,
        curve: Curve | None = None,
        violations: Sequence[float] | None = None,
    ) -> None:
        """Add a trial of the past, given as the ledger stores it; one outside the space is left out."""
        if self.samples and fits(self.space, labels):
            self.memory.add(labels, state, values, curve, self.sampler.marks(self.memory.position), violations)

    def observe(
        self,
        handle: int,
        state: TrialState,
        values: Sequence[float] | None,
        curve: Curve | None = None,
        violations: Sequence[float] | None = None,
    ) -> None:
        """Record the result of a proposal; ``curve`` holds its values by epoch, for a PRUNED one up to its stop.

        Args:
            violations: by how much each constraint is broken, at most 0 where it holds.
        """
        self.memory.tell(handle, state, values, curve, violations)

    def propose(self, accept: Accept, fixed: dict[str, Any] | None = None, number: int = 0) -> Proposal | None:
        """Return the next setting, or None when there is nothing left (``exhausted`` says why) and none is given.

        Args:
            accept: returns why a setting may not run, or None. Refused ones are drawn again, untrained.
            fixed: ledger values that are given (an enqueued setting); refused, it is returned with ``refused`` set.
            number: of the enqueued setting; it seeds the draw of the parameters that the setting leaves open.

        Raises:
            InputError: the sampler drew a setting outside the space.
        """
        if fixed is not None:
            values, handle = self.memory.ask(RandomSampler(seed=self._seed(number, _MAX_ATTEMPTS)), fixed)
            self.memory.see(values)
            return Proposal(values, None, handle, accept(values))
        if self.exhausted is not None:
            return None
        if self._settings is not None:
            return self._propose_from(self._settings, accept)
        index, reason = self.next_index, None
        for attempt in range(_MAX_ATTEMPTS):
            values, handle = self._draw(index, attempt)
            repeated = key_of(values) in self.memory.seen and attempt < _REPEATS_ACCEPTED_AFTER
            reason = "the setting has been tried" if repeated else accept(values)
            if reason is None:
                return self._proposal(values, index, handle)
            self.memory.drop(handle, TrialState.FAIL if repeated else TrialState.PRUNED)
        self.exhausted = f"{_MAX_ATTEMPTS} proposals in a row were refused; the last one: {reason}"
        return None

    def _propose_from(self, settings: Sequence[Setting], accept: Accept) -> Proposal | None:
        """Return the first setting that has not been tried yet, under this or an earlier sampler."""
        for setting in settings:
            key = key_of(setting)
            if key in self.memory.seen or key in self._refused:
                continue
            reason = accept(setting)
            if reason is None:
                values, handle = self.memory.ask(RandomSampler(seed=0), self.space.labels(setting))
                return self._proposal(values, self.next_index, handle)
            self._refused[key] = reason
        refusal = next(reversed(self._refused.values()), None)
        ending = f"; the last one was refused: {refusal}" if refusal is not None else ""
        self.exhausted = f"every combination of the {self.section.name} has been proposed{ending}"
        return None

    def _proposal(self, values: dict[str, Any], index: int, handle: int) -> Proposal:
        self.memory.see(values)
        self.next_index = index + 1
        return Proposal(values, index, handle)

    def _draw(self, index: int, attempt: int) -> tuple[dict[str, Any], int]:
        drawn = self.sampler.next(index, attempt, self.memory)
        if not isinstance(drawn, dict):
            return self.memory.ask(drawn)
        self._check(drawn)
        return self.memory.ask(RandomSampler(seed=self._seed(index, attempt)), self.space.labels(drawn))

    def _check(self, setting: Setting) -> None:
        """Raise ``InputError`` where a sampler drew a key or a value outside the space."""
        known = self.space.parameters
        for key, value in setting.items():
            if key not in known:
                raise InputError(
                    f"sampler '{self.section.name}' drew '{key}', no key of the space{nearest(key, known)}"
                )
            if not contains(known[key], value):
                raise InputError(
                    f"sampler '{self.section.name}' drew {key} = {value!r}, which it never is in this space"
                )

    def _seed(self, *parts: int) -> int:
        return seed_of(self.section.seed, *parts)


def fits(space: Space, labels: dict[str, Any], whole: bool = True) -> bool:
    """Return whether a setting, given as the ledger stores it, is in the space; unless ``whole``, it may be partial."""
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
