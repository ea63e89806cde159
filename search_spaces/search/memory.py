"""A sampler's record of the trials so far: an in-memory Optuna study, and the learning curves beside it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search_spaces.study.space import Space

# the successor, Trial.set_constraint, came with Optuna 5; 4.5 is supported, too
warnings.filterwarnings("ignore", message=".*constraints_func.*", category=FutureWarning)

Curve = dict[int, list[float]]
"""Values of the objectives by epoch."""
_VIOLATIONS, _FOR_OPTUNA = "violations", "constraints"
"""Attributes of a trial: ours, and the one in which Optuna's samplers look."""


@dataclass(frozen=True)
class Past:
    """A trial so far: ``labels`` are its values as the ledger stores them.

    ``state`` is COMPLETE with final ``values``, RUNNING, PRUNED (stopped at the end of its ``curve``, or refused before
    it began: then without one) or FAIL. ``violations`` says by how much each constraint is broken, where that is known.
    """

    labels: dict[str, Any]
    state: TrialState
    values: list[float] | None
    curve: Curve
    violations: list[float] | None = None


class Memory:
    """Trials and refused proposals of a study, in the order of their proposals; its length counts those that ended."""

    def __init__(self, space: Space, directions: Sequence[str], seed: int) -> None:
        self.space, self.directions = space, list(directions)
        self._study = optuna.create_study(directions=self.directions, sampler=RandomSampler(seed=seed))
        self._curves: dict[int, Curve] = {}
        self._running: dict[int, Trial] = {}
        self.seen: set[str] = set()
        """Settings that were proposed, given or run before, as ``key_of`` writes them."""

    def __len__(self) -> int:
        return len(self._curves)

    @property
    def position(self) -> int:
        """Position of the next trial."""
        return len(self._study.get_trials(deepcopy=False))

    def trials(self) -> Iterator[Past]:
        """Yield every trial, in order."""
        trials = self._study.get_trials(deepcopy=False)
        curves = dict(
            list(self._curves.items())
        )  # copied after the trials and in one step: another thread ends trials meanwhile
        for trial in trials:
            values = list(trial.values) if trial.state == TrialState.COMPLETE else None
            broken = violations_of(trial)
            yield Past(trial.params, trial.state, values, curves.get(trial.number) or {}, broken)

    def add(
        self,
        labels: dict[str, Any],
        state: TrialState,
        values: Sequence[float] | None,
        curve: Curve | None,
        marks: dict[str, Any],
        violations: Sequence[float] | None = None,
    ) -> None:
        """Add a trial of the past."""
        distributions = self.space.distributions()
        self.see(self.space.restore(labels))
        past = create_trial(
            state=state,
            values=list(values) if values is not None and state == TrialState.COMPLETE else None,
            params=labels,
            distributions={name: distributions[name] for name in labels},
            system_attrs=marks if violations is None else {**marks, _FOR_OPTUNA: list(violations)},
            user_attrs={} if violations is None else {_VIOLATIONS: list(violations)},
        )
        number = self.position
        self._study.add_trial(past)
        self._curves[number] = curve or {}

    def ask(self, sampler: BaseSampler, fixed: dict[str, Any] | None = None) -> tuple[dict[str, Any], int]:
        """Begin a trial; return its setting and its handle. ``fixed`` are ledger values that are given."""
        self._study.sampler = sampler
        if fixed is not None:
            self._study.enqueue_trial(fixed)
        trial = self._study.ask()
        self._running[trial.number] = trial
        return self.space.sample(trial), trial.number

    def tell(
        self,
        handle: int,
        state: TrialState,
        values: Sequence[float] | None,
        curve: Curve | None,
        violations: Sequence[float] | None = None,
    ) -> None:
        """Record how a trial ended."""
        self._curves[handle] = curve or {}
        trial = self._running.pop(handle)
        if violations and state == TrialState.COMPLETE:
            trial.set_user_attr(_VIOLATIONS, list(violations))
            # where Optuna's samplers look; the sampler is left alone, another thread may be asking it
            storage = trial.storage
            study = storage.get_study_id_from_name(self._study.study_name)
            trial_id = storage.get_trial_id_from_study_id_trial_number(study, handle)
            storage.set_trial_system_attr(trial_id, _FOR_OPTUNA, list(violations))
        self._study.tell(handle, list(values) if state == TrialState.COMPLETE and values is not None else None, state)

    def drop(self, handle: int, state: TrialState) -> None:
        """Record that a setting does not run: PRUNED where it was refused, FAIL where it had been tried."""
        self._running.pop(handle)
        self._study.tell(handle, state=state)

    def see(self, setting: dict[str, Any]) -> None:
        """Count a setting as tried."""
        self.seen.add(key_of(setting))


def key_of(setting: dict[str, Any]) -> str:
    """Return a setting as text; equal settings have equal texts."""
    return json.dumps(setting, sort_keys=True, default=repr)


def violations_of(trial: FrozenTrial) -> list[float] | None:
    """Return by how much a trial breaks each constraint, None where it is not known."""
    found: list[float] | None = trial.user_attrs.get(_VIOLATIONS)
    return found
