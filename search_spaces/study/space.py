"""The searched space: which parameters a trial has, in which order they are decided, and the run they make.

A parameter is *active* when every parameter named in its ``when`` is active and has one of the values asked for.
Samplers see one of two views: active parameters only (define-by-run), or the *flattened* space of all parameters, where
inactive ones are filled with the middle of their range.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from routing.config.overrides import switch_names
from routing.config.run import RunConfig, valid_keys
from routing.config.section import dotted, merge, nested
from routing.errors import InputError, choices, nearest
from search_spaces.study.parameters import (
    distribution,
    extremes,
    from_label,
    grid_values,
    in_words,
    is_constant,
    middle,
    same,
    suggest,
    to_label,
)
from search_spaces.study.schema import MAX_GRID, Parameter

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

_SECTION_NAMES = ("model.name", "dataset.name")
_DEFAULT_NAMES = {"model.name": "attention_routing", "dataset.name": "digits"}


class Space:
    """Parameters of a study over the keys all its trials share.

    Args:
        parameters: searched keys; see ``Parameter``.
        base: nested or dotted keys of the run that all trials share. A key of a model that a trial does not have is
            left out of that trial.

    Raises:
        InputError: ``when`` names an unknown parameter, a value its parent never takes, or closes a circle.
    """

    def __init__(self, parameters: dict[str, Parameter], base: dict[str, Any]) -> None:
        self.parameters = {name: parameters[name] for name in _decision_order(parameters)}
        self.base = dotted(nested(base))
        self._trees: dict[tuple[str, str], dict[str, Any]] = {}

    def is_active(self, name: str, values: dict[str, Any]) -> bool:
        """Return whether ``name`` is decided in a trial that has these values (its parents' included)."""
        return all(
            parent in values and any(same(values[parent], wanted) for wanted in accepted)
            for parent, accepted in self.parameters[name].when.items()
        )

    def decide(self, pick: Callable[[str, Parameter], Any]) -> dict[str, Any]:
        """Return one setting: ``pick`` is asked for each active parameter, parents first; constants are filled in."""
        values: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if self.is_active(name, values):
                values[name] = parameter.value if is_constant(parameter) else pick(name, parameter)
        return values

    def sample(self, trial: Trial) -> dict[str, Any]:
        """Return the setting an Optuna trial suggests, active parameters only."""

        return self.decide(lambda name, parameter: from_label(parameter, suggest(trial, name, parameter)))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the flattened space: the Optuna distribution of every parameter that is not a constant."""
        return {name: distribution(p) for name, p in self.parameters.items() if not is_constant(p)}

    def labels(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values as the ledger stores them: constants left out, lists as text."""
        return {
            name: to_label(value)
            for name, value in values.items()
            if name in self.parameters and not is_constant(self.parameters[name])
        }

    def flattened(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Return ledger values of all parameters, inactive ones at the middle of their range."""
        return {
            name: labels[name] if name in labels else to_label(middle(p))
            for name, p in self.parameters.items()
            if not is_constant(p)
        }

    def restore(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Inverse of ``labels``: the setting of a trial read from the ledger."""
        return self.decide(lambda name, parameter: from_label(parameter, labels[name]))

    def names(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return ``model.name`` and ``dataset.name`` of a setting."""
        return {key: values.get(key, self.base.get(key, _DEFAULT_NAMES[key])) for key in _SECTION_NAMES}

    def config(self, values: dict[str, Any]) -> RunConfig:
        """Return the checked run of a setting.

        Raises:
            InputError: the values do not make a valid run together.
        """
        names = self.names(values)
        key = (names["model.name"], names["dataset.name"])
        if key not in self._trees:
            self._trees[key] = self.tree(names)
        rest = {name: value for name, value in values.items() if name not in _SECTION_NAMES}
        return RunConfig.from_dict(merge(self._trees[key], nested(rest)))

    def tree(self, names: dict[str, Any]) -> dict[str, Any]:
        """Return the shared keys of a run of this model and data set, nested; keys of the others are left out.

        So are values that belong to another model and that this one cannot have (``aggregator``, say).
        """
        own = {key: self.base.get(key, default) for key, default in _DEFAULT_NAMES.items()}
        declared = set(valid_keys(nested(own)))
        shared = {key: value for key, value in self.base.items() if key in declared or not _of_section(key)}
        known = set(valid_keys(nested(names)))
        extra = {key: value for key, value in self.base.items() if key in known and key not in declared}
        return merge(switch_names(nested({**own, **shared}), names), nested({**extra, **names}))

    def corners(self) -> Iterator[dict[str, Any]]:
        """Yield settings that together use every choice and both ends of every range, in every branch of ``when``."""
        parents = {name for p in self.parameters.values() for name in p.when} | set(_SECTION_NAMES)
        branching = [name for name in self.parameters if name in parents]
        seen = set()
        for combination in itertools.product(*(extremes(self.parameters[name]) for name in branching)):
            wanted = dict(zip(branching, combination, strict=True))
            first = self.decide(lambda name, p, wanted=wanted: wanted.get(name, extremes(p)[0]))  # type: ignore[misc]
            if repr(first) in seen:
                continue
            seen.add(repr(first))
            yield first
            for name in first.keys() - set(branching):
                for value in extremes(self.parameters[name])[1:]:
                    yield {**first, name: value}

    def grid(self, points: int) -> list[dict[str, Any]]:
        """Return every combination of the active parameters, a float range cut into ``points`` values."""
        settings: list[dict[str, Any]] = [{}]
        for name, parameter in self.parameters.items():
            values = grid_values(parameter, points)
            active = [self.is_active(name, setting) for setting in settings]
            if sum(active) * len(values) > MAX_GRID:
                raise InputError(f"the grid has more than {MAX_GRID:,} combinations; use another sampler")
            settings = [
                {**setting, name: value} if is_on else setting
                for setting, is_on in zip(settings, active, strict=True)
                for value in (values if is_on else [None])
            ]
        return settings

    def words(self) -> list[str]:
        """Return one line in words per parameter."""
        return [f"{name}: {in_words(parameter)}" for name, parameter in self.parameters.items()]


def _decision_order(parameters: dict[str, Parameter]) -> list[str]:
    """Return the names with parents before children, otherwise in the order of the file."""
    for name, parameter in parameters.items():
        for parent, accepted in parameter.when.items():
            if parent not in parameters:
                raise InputError(
                    f"{name}: when names '{parent}', which is no parameter of the space{nearest(parent, parameters)}"
                )
            _check_reachable(name, parent, parameters[parent], accepted)
    order: list[str] = []
    waiting = list(parameters)
    while waiting:
        ready = [name for name in waiting if all(parent in order for parent in parameters[name].when)]
        if not ready:
            raise InputError(f"{waiting[0]}: when goes in a circle through {choices(waiting)}")
        order += ready
        waiting = [name for name in waiting if name not in order]
    return order


def _check_reachable(name: str, parent: str, parameter: Parameter, accepted: tuple[Any, ...]) -> None:
    options = [parameter.value] if is_constant(parameter) else parameter.choice
    if options is None:
        raise InputError(f"{name}: when names '{parent}', a range; only a choice can decide about another parameter")
    for value in accepted:
        if not any(same(value, option) for option in options):
            raise InputError(
                f"{name}: when asks for {parent} = {value!r}, which it never is"
                f"{nearest(str(value), map(str, options))} (valid: {choices(options)})"
            )


def _of_section(key: str) -> bool:
    return key.startswith(("model.", "dataset."))
