"""``Constraint``: what a study demands of a point beside its objectives, as in ``val_accuracy >= 0.9``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from routing.errors import choices, nearest
from routing.objectives import FLOOR
from routing.quantities import objectives, quantity

_FORM = re.compile(r"^\s*([A-Za-z_]\w*)\s*(<=|<|>=|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*$")
_TOUCHED = 1e-12
"""Violation at the limit itself, where it is not allowed."""


@dataclass(frozen=True)
class Constraint:
    """A limit on a metric that every operating point has."""

    text: str
    metric: str
    sign: str
    limit: float

    @classmethod
    def of(cls, text: str) -> Constraint:
        """Read ``flops <= 1.0e6``; ``ValueError`` for what cannot be read, or names no metric of a point."""
        match = _FORM.match(text)
        if match is None:
            raise ValueError(f"constraints: cannot read '{text}'; write it as in flops <= 1.0e6")
        name, sign, number = match.groups()
        known = objectives()
        if name not in known:
            raise ValueError(
                f"constraints: '{name}' is not measured at every point{nearest(name, known)} (valid: {choices(known)})"
            )
        if why := quantity(name).why_not(float(number)):
            raise ValueError(f"constraints: no {name} can be {float(number):g}; {why}")
        return cls(text, name, sign, float(number))

    def violation(self, value: float) -> float:
        """Return by how much it is broken, on the scale of its quantity; at most 0 where it holds."""
        scale = self._log if quantity(self.metric).scale == "log" else float
        beyond = scale(value) - scale(self.limit)
        beyond = beyond if self.sign.startswith("<") else -beyond
        return _TOUCHED if beyond == 0 and "=" not in self.sign else beyond

    @staticmethod
    def _log(value: float) -> float:
        return math.log10(max(value, FLOOR))

    def holds(self, value: float) -> bool:
        """Return whether a value keeps to it."""
        return self.violation(value) <= 0


def first_broken(constraints: Sequence[Constraint], point: Mapping[str, Any]) -> str:
    """Return the text of the first constraint that a point breaks, or whose metric it lacks; empty where none."""
    return next((one.text for one in constraints if not _is_kept(one, point.get(one.metric))), "")


def _is_kept(constraint: Constraint, value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and constraint.holds(float(value))


def violations(constraints: Sequence[Constraint], point: Mapping[str, Any]) -> list[float] | None:
    """Return by how much a point breaks each constraint; None where it lacks a metric."""
    values = [point.get(one.metric) for one in constraints]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        return None
    return [one.violation(float(value)) for one, value in zip(constraints, values, strict=True)]  # type: ignore[arg-type]
