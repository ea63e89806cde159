"""One parameter of a space: its distribution, its label in the ledger, its quantiles, its ends, its words."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from routing.errors import InputError, choices
from search_spaces.study.schema import MAX_GRID, Parameter

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


_OFF_GRID = 1e-8
"""Share of a step by which rounding may put a value beside the grid; Optuna allows as much."""


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal; ``1`` is not ``True`` here, and ``1.0`` is ``1``."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def is_constant(parameter: Parameter) -> bool:
    """Return whether the parameter leaves nothing to decide."""
    return parameter.choice is None and parameter.float_range is None and parameter.int_range is None


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return the Optuna distribution of a parameter."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.choice is not None:
        return CategoricalDistribution([to_label(value) for value in parameter.choice])
    if parameter.float_range is not None:
        low, high = parameter.float_range
        return FloatDistribution(low, high, log=parameter.log, step=parameter.step)
    assert parameter.int_range is not None
    low, high = parameter.int_range
    return IntDistribution(low, high, log=parameter.log, step=int(parameter.step or 1))


def suggest(trial: Trial, name: str, parameter: Parameter) -> Any:
    """Return the ledger value that an Optuna trial suggests for one parameter."""
    if parameter.choice is not None:
        return trial.suggest_categorical(name, [to_label(value) for value in parameter.choice])
    if parameter.float_range is not None:
        low, high = parameter.float_range
        return trial.suggest_float(name, low, high, log=parameter.log, step=parameter.step)
    assert parameter.int_range is not None
    low, high = parameter.int_range
    return trial.suggest_int(name, low, high, log=parameter.log, step=int(parameter.step or 1))


def contains(parameter: Parameter, value: Any) -> bool:
    """Return whether the parameter can have this value."""
    if is_constant(parameter) or parameter.choice is not None:
        return any(same(value, option) for option in extremes(parameter))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    low, high = extremes(parameter)[0], extremes(parameter)[-1]
    if not low <= value <= high or (parameter.int_range is not None and value != int(value)):
        return False
    steps = (value - low) / parameter.step if parameter.step is not None else 0.0
    return abs(steps - round(steps)) < _OFF_GRID


def to_label(value: Any) -> Any:
    """Return a value as Optuna can store it: scalars as they are, lists and mappings as text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def from_label(parameter: Parameter, label: Any) -> Any:
    """Inverse of ``to_label``."""
    if parameter.choice is None:
        return label
    return next((value for value in parameter.choice if to_label(value) == label), label)


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
        return _on_grid(start, parameter.step, min(int(u * (steps + 1)), steps))
    return start + u * (stop - start)


def _on_grid(start: float, step: float, index: int) -> float:
    """Return ``start + index * step`` in decimals, as Optuna reckons: 3 * 0.1 is 0.3 and lies in [0, 0.3]."""
    return float(Decimal(str(start)) + index * Decimal(str(step)))


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
    if (parameter.int_range is not None and not parameter.log) or parameter.step is not None:
        low, high = extremes(parameter)[0], extremes(parameter)[-1]
        step = parameter.step or 1
        count = (high - low) / step + 1
        if count > MAX_GRID:
            raise InputError(f"a range of {count:.3g} values is too fine for a grid; give it a larger step")
        indices = range(math.floor(count + 1e-9))
        return [low + int(step) * i if parameter.int_range else _on_grid(low, step, i) for i in indices]
    ends = extremes(parameter)
    if len(ends) == 1 or points == 1:
        return ends[:1]
    inner = [at_quantile(parameter, i / (points - 1)) for i in range(1, points - 1)]
    return list(dict.fromkeys([ends[0], *inner, ends[1]]))


def in_words(parameter: Parameter) -> str:
    """Return the parameter in words."""
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
