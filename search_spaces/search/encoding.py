"""Settings of a space as numbers: a point of the unit cube, and the features that a surrogate compares.

Dimensions: N settings, P parameters that are no constants, D features. A range is one feature in [0, 1], on its own
scale; a choice is one feature per option, so that any two options are equally far apart. An inactive parameter is at
the middle of its range, or at no option: it then tells no setting from another.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.study.parameters import at_quantile, extremes, is_constant, same, to_label
from search_spaces.study.schema import Parameter
from search_spaces.study.space import Space

Array = NDArray[np.float64]
_MAX_LEVELS = 1000
"""Whole numbers and steps of a range with more values than this are compared as if it were continuous."""


class Encoding:
    """The searched parameters of a space, as columns."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.names = [name for name, p in space.parameters.items() if not is_constant(p)]
        self._parameters = [space.parameters[name] for name in self.names]
        self._levels = [_levels(p) for p in self._parameters]
        widths = [len(p.choice) if p.choice is not None else 1 for p in self._parameters]
        self.owner = np.repeat(np.arange(len(self.names)), widths)
        """(D,) the parameter that each feature belongs to."""
        self.is_choice = np.array([p.choice is not None for p in self._parameters])
        """(P,) which parameters have no order."""

    def cube(self, labels: dict[str, Any]) -> Array:
        """Return the point (P,) of the unit cube of ledger values; inactive parameters are at its middle."""
        return np.array(
            [
                _quantile(p, labels[name]) if name in labels else 0.5
                for name, p in zip(self.names, self._parameters, strict=True)
            ]
        )

    def setting(self, point: Array) -> dict[str, Any]:
        """Return the setting at a point (P,) of the unit cube."""
        places = dict(zip(self.names, point.tolist(), strict=True))
        return self.space.decide(lambda name, p: at_quantile(p, places[name]))

    def features(self, points: Array) -> Array:
        """Return what a surrogate compares: (N, P) points of the unit cube as (N, D) features."""
        active = self._active(points)
        columns = []
        for index, (parameter, levels) in enumerate(zip(self._parameters, self._levels, strict=True)):
            column, is_on = points[:, index], active[:, index]
            if parameter.choice is not None:
                options = np.minimum((column * len(parameter.choice)).astype(int), len(parameter.choice) - 1)
                columns += [(options == k) * is_on / math.sqrt(2) for k in range(len(parameter.choice))]
                continue
            if levels is not None:
                column = levels[1][np.searchsorted(levels[0], column, side="right")]
            columns.append(np.where(is_on, column, 0.5))
        return np.stack(columns, axis=1)

    def _active(self, points: Array) -> NDArray[np.bool_]:
        active: dict[str, NDArray[np.bool_]] = {}
        for name, parameter in self.space.parameters.items():
            found = np.ones(len(points), dtype=bool)
            for parent, accepted in parameter.when.items():
                decides = self.space.parameters[parent]
                if is_constant(decides):
                    found &= any(same(decides.value, value) for value in accepted)
                else:
                    found &= self._is_one_of(points, parent, accepted)
                found &= active[parent]
            active[name] = found
        return np.stack([active[name] for name in self.names], axis=1)

    def _is_one_of(self, points: Array, parent: str, accepted: tuple[Any, ...]) -> NDArray[np.bool_]:
        options = self.space.parameters[parent].choice
        assert options is not None
        places = np.minimum((points[:, self.names.index(parent)] * len(options)).astype(int), len(options) - 1)
        return np.array([any(same(option, value) for value in accepted) for option in options])[places]


def _quantile(parameter: Parameter, label: Any) -> float:
    """Return where in [0, 1] a value lies: the inverse of ``at_quantile``."""
    if parameter.choice is not None:
        options = [to_label(value) for value in parameter.choice]
        place = next(k for k, option in enumerate(options) if same(option, label))
        return (place + 0.5) / len(options)
    low, high = extremes(parameter)[0], extremes(parameter)[-1]
    if low == high:
        return 0.5
    if parameter.int_range is not None and parameter.log:
        return (math.log(label) - math.log(low - 0.5)) / (math.log(high + 0.5) - math.log(low - 0.5))
    if parameter.log:
        return (math.log(label) - math.log(low)) / (math.log(high) - math.log(low))
    if parameter.int_range is None and parameter.step is None:
        return float((label - low) / (high - low))
    step = parameter.step or 1
    return (round((label - low) / step) + 0.5) / (math.floor((high - low) / step + 1e-9) + 1)


def _levels(parameter: Parameter) -> tuple[Array, Array] | None:
    """Return of a stepped range the (L - 1,) places between its values and the (L,) features; None of any other."""
    if parameter.choice is not None or (parameter.int_range is None and parameter.step is None):
        return None
    low, high = extremes(parameter)[0], extremes(parameter)[-1]
    step = parameter.step or 1
    count = math.floor((high - low) / step + 1e-9) + 1
    if count > _MAX_LEVELS:
        return None
    if count == 1:
        return np.empty(0), np.array([0.5])
    if parameter.log:
        values = np.arange(low, high + 1)
        start, stop = math.log(low - 0.5), math.log(high + 0.5)
        return (np.log(values[:-1] + 0.5) - start) / (stop - start), np.log(values / low) / math.log(high / low)
    return np.arange(1, count) / count, np.linspace(0.0, 1.0, count)
