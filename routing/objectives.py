"""``Objective``: goal, scale and reference of a metric in a study. Only it turns a metric into a loss and back.

The scale is one for everything that measures a front: samplers, stopping rules, hypervolume, knee, tables, figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from routing.config.section import Section
from routing.quantities import Goal, find, heading

FLOOR = 1e-12
"""Values below it count as it on a logarithmic scale."""


class Objective(Section):
    """One column of points.csv that a study optimises, its direction, its scale and its reference value."""

    metric: str = Field(description="A scalar of the trial record.")
    goal: Goal = Field(description="Direction in which the metric is better.")
    reference: float | None = Field(
        default=None, description="Reference point of the hypervolume: worse than this counts as nothing."
    )
    scale: Literal["linear", "log"] = Field(
        default="linear",
        description="On which fronts are searched, measured and drawn; log is base 10. Default: log for a cost.",
    )

    @model_validator(mode="before")
    @classmethod
    def _scale_of_its_quantity(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "scale" in values or not isinstance(values.get("metric"), str):
            return values
        known = find(values["metric"])
        own = ("log" if values.get("cost") is True else "linear") if known is None else known.scale
        return {**values, "scale": own}

    @model_validator(mode="after")
    def _reference_has_a_logarithm(self) -> Objective:
        known = find(self.metric)
        impossible = known is not None and self.reference is not None and known.why_not(self.reference)
        if self.in_logs and self.reference is not None and self.reference <= 0 and not impossible:
            raise ValueError(
                f"reference of {self.metric}: {self.reference:g} has no logarithm; give one above 0, or scale: linear"
            )
        return self

    @property
    def in_logs(self) -> bool:
        """Whether its loss is a logarithm."""
        return self.scale == "log"

    @property
    def sign(self) -> float:
        """Return the factor that makes lower better."""
        return -1.0 if self.goal == "maximize" else 1.0

    @overload
    def loss(self, values: float) -> float: ...
    @overload
    def loss(self, values: ArrayLike) -> Any: ...
    def loss(self, values: ArrayLike) -> Any:
        """Return values of the metric on its scale, lower is better."""
        if not self.in_logs:
            return np.multiply(values, self.sign)
        return self.sign * np.log10(np.maximum(values, FLOOR))

    def value(self, losses: ArrayLike) -> Any:
        """Return the metric of losses: the inverse of ``loss``."""
        plain = np.multiply(losses, self.sign)
        return 10.0**plain if self.in_logs else plain

    @property
    def is_cost(self) -> bool:
        """Whether the metric measures what a model costs."""
        known = find(self.metric)
        return known is not None and known.is_cost


def losses_of(values: ArrayLike, objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return metric values (N, M) as loss vectors (N, M) on the scales of their objectives."""
    matrix = np.asarray(values, dtype=float).reshape(-1, len(objectives))
    return np.stack([o.loss(column) for o, column in zip(objectives, matrix.T, strict=True)], axis=1)


def values_of(losses: ArrayLike, objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return loss vectors (N, M), or one of them (M,), as metric values: the inverse of ``losses_of``."""
    columns = np.moveaxis(np.asarray(losses, dtype=float), -1, 0)
    return np.stack([o.value(column) for o, column in zip(objectives, columns, strict=True)], axis=-1)


def reference_of(objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return the declared reference point (M,) as losses, NaN where none is declared."""
    return losses_of([np.nan if o.reference is None else o.reference for o in objectives], objectives)[0]


def volume_of(points: Iterable[Sequence[float]], objectives: Sequence[Objective]) -> float:
    """Return the hypervolume of points (N, M), metric values, on their scales up to the declared reference point."""
    from routing.pareto import hypervolume  # imports moocore, which most users of this module can do without

    return hypervolume(losses_of(list(points), objectives), reference_of(objectives))


def scales_in_words(objectives: Sequence[Objective]) -> str:
    """Return what a hypervolume is measured in: ``log10 of multiply-adds``; ``linear`` without logarithms."""
    logs = [heading(objective.metric) for objective in objectives if objective.in_logs]
    return f"log10 of {' and '.join(logs)}" if logs else "linear"
