"""The searched space: which parameters a trial has, in which order they are decided, and the run they make.

A parameter is *active* when every parameter named in its ``when`` is active and has one of the values asked for.
Samplers see one of two views: active parameters only (define-by-run), or the *flattened* space of all parameters, where
inactive ones are filled with the middle of their range.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from routing.config import RunConfig, valid_keys
from routing.errors import InputError, choices, nearest
from routing.section import dotted, nested
from search_spaces.schema import Parameter

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
        self._bases: dict[tuple[str, str], RunConfig] = {}

    def is_active(self, name: str, values: dict[str, Any]) -> bool:
        """Return whether ``name`` is decided in a trial that has these values (its parents' included)."""
        return all(
            parent in values and any(_same(values[parent], wanted) for wanted in accepted)
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
            name: to_label(self.parameters[name], value)
            for name, value in values.items()
            if name in self.parameters and not is_constant(self.parameters[name])
        }

    def flattened(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Return ledger values of all parameters, inactive ones at the middle of their range."""
        return {
            name: labels[name] if name in labels else to_label(p, middle(p))
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
        if key not in self._bases:
            self._bases[key] = self._base_of(names)
        rest = {name: value for name, value in values.items() if name not in _SECTION_NAMES}
        return self._bases[key].replace(**rest) if rest else self._bases[key]

    def _base_of(self, names: dict[str, Any]) -> RunConfig:
        """Return the shared keys as a run of this model and data set; keys of the others are left out."""
        own = {key: self.base.get(key, default) for key, default in _DEFAULT_NAMES.items()}
        declared = set(valid_keys(nested(own)))
        shared = {key: value for key, value in self.base.items() if key in declared or not _of_section(key)}
        switched = RunConfig.from_dict({**own, **shared}, "base").replace(**names)
        known = set(valid_keys(nested(names)))
        extra = {key: value for key, value in self.base.items() if key in known and key not in declared}
        return switched.replace(**extra) if extra else switched

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
            grown = []
            for setting in settings:
                if self.is_active(name, setting):
                    grown += [{**setting, name: value} for value in grid_values(parameter, points)]
                else:
                    grown.append(setting)
            settings = grown
            if len(settings) > 1_000_000:
                raise InputError("the grid has more than 1,000,000 combinations; use another sampler")
        return settings

    def words(self) -> list[str]:
        """Return one line per parameter, as a person would say it."""
        return [f"{name}: {_in_words(parameter)}" for name, parameter in self.parameters.items()]


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
        if not any(_same(value, option) for option in options):
            raise InputError(
                f"{name}: when asks for {parent} = {value!r}, which it never is"
                f"{nearest(str(value), map(str, options))} (valid: {choices(options)})"
            )


def _of_section(key: str) -> bool:
    return key.startswith(("model.", "dataset."))


def _same(left: Any, right: Any) -> bool:
    """``1`` is not ``True`` here, and ``1.0`` is ``1``."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def is_constant(parameter: Parameter) -> bool:
    """Return whether the parameter leaves nothing to decide."""
    return parameter.choice is None and parameter.float_range is None and parameter.int_range is None


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return the Optuna distribution of a parameter."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.choice is not None:
        return CategoricalDistribution([to_label(parameter, value) for value in parameter.choice])
    if parameter.float_range is not None:
        low, high = parameter.float_range
        return FloatDistribution(low, high, log=parameter.log, step=parameter.step)
    assert parameter.int_range is not None
    low, high = parameter.int_range
    return IntDistribution(low, high, log=parameter.log, step=int(parameter.step or 1))


def suggest(trial: Trial, name: str, parameter: Parameter) -> Any:
    """Return the ledger value that an Optuna trial suggests for one parameter."""
    if parameter.choice is not None:
        return trial.suggest_categorical(name, [to_label(parameter, value) for value in parameter.choice])
    if parameter.float_range is not None:
        low, high = parameter.float_range
        return trial.suggest_float(name, low, high, log=parameter.log, step=parameter.step)
    assert parameter.int_range is not None
    low, high = parameter.int_range
    return trial.suggest_int(name, low, high, log=parameter.log, step=int(parameter.step or 1))


def contains(parameter: Parameter, value: Any) -> bool:
    """Return whether the parameter can have this value."""
    if is_constant(parameter) or parameter.choice is not None:
        return any(_same(value, option) for option in extremes(parameter))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    low, high = extremes(parameter)[0], extremes(parameter)[-1]
    return bool(low <= value <= high) and (parameter.int_range is None or value == int(value))


def to_label(parameter: Parameter, value: Any) -> Any:
    """Return a value as Optuna can store it: scalars as they are, lists and mappings as text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def from_label(parameter: Parameter, label: Any) -> Any:
    """Inverse of ``to_label``."""
    if parameter.choice is None:
        return label
    return next((value for value in parameter.choice if to_label(parameter, value) == label), label)


def middle(parameter: Parameter) -> Any:
    """Return the middle of a range (geometric when log), or the first choice."""
    if parameter.choice is not None:
        return parameter.choice[0]
    return at_quantile(parameter, 0.5)


def at_quantile(parameter: Parameter, u: float) -> Any:
    """Return the value below which the share ``u`` in [0, 1) of the parameter lies."""
    if parameter.choice is not None:
        return parameter.choice[min(int(u * len(parameter.choice)), len(parameter.choice) - 1)]
    if parameter.int_range is not None:
        low, high = parameter.int_range
        if parameter.log:
            inside = math.exp(math.log(low - 0.5) + u * (math.log(high + 0.5) - math.log(low - 0.5)))
            return min(max(round(inside), low), high)
        step = int(parameter.step or 1)
        return low + step * min(int(u * ((high - low) // step + 1)), (high - low) // step)
    assert parameter.float_range is not None
    start, stop = parameter.float_range
    if parameter.log:
        return min(max(start * (stop / start) ** u, start), stop)
    if parameter.step is not None:
        steps = math.floor((stop - start) / parameter.step + 1e-9)
        return start + parameter.step * min(int(u * (steps + 1)), steps)
    return start + u * (stop - start)


def extremes(parameter: Parameter) -> list[Any]:
    """Return all choices, or the two ends of a range."""
    if is_constant(parameter):
        return [parameter.value]
    if parameter.choice is not None:
        return list(parameter.choice)
    bounds = parameter.float_range or parameter.int_range
    assert bounds is not None
    return list(dict.fromkeys(bounds))


def grid_values(parameter: Parameter, points: int) -> list[Any]:
    """Return the values a grid visits: all choices, every step of a range, or ``points`` values of a float range."""
    if is_constant(parameter) or parameter.choice is not None:
        return extremes(parameter)
    if parameter.int_range is not None and not parameter.log:
        low, high = parameter.int_range
        return list(range(low, high + 1, int(parameter.step or 1)))
    if parameter.step is not None:
        assert parameter.float_range is not None
        low_f, high_f = parameter.float_range
        return [low_f + parameter.step * i for i in range(math.floor((high_f - low_f) / parameter.step + 1e-9) + 1)]
    ends = extremes(parameter)
    if len(ends) == 1 or points == 1:
        return ends[:1]
    inner = [at_quantile(parameter, i / (points - 1)) for i in range(1, points - 1)]
    return list(dict.fromkeys([ends[0], *inner, ends[1]]))


def _in_words(parameter: Parameter) -> str:
    if is_constant(parameter):
        text = f"always {parameter.value}"
    elif parameter.choice is not None:
        text = f"one of {choices(parameter.choice)}"
    else:
        low, high = extremes(parameter)[0], extremes(parameter)[-1]
        kind = "a number" if parameter.float_range is not None else "a whole number"
        scale = ", on a log scale" if parameter.log else ""
        step = f", in steps of {parameter.step:g}" if parameter.step is not None else ""
        text = f"{kind} from {low:g} to {high:g}{scale}{step}"
    conditions = [f"{parent} is {' or '.join(map(str, accepted))}" for parent, accepted in parameter.when.items()]
    return f"{text} (only where {' and '.join(conditions)})" if conditions else text
