"""``Objective``: goal and reference of a metric in a study. Only its ``sign`` turns a metric into a loss."""

from __future__ import annotations

from pydantic import Field

from routing.config.section import Section
from routing.quantities import Goal, find


class Objective(Section):
    """One column of points.csv that a study optimises, its direction and its reference value."""

    metric: str = Field(description="A scalar of the trial record.")
    goal: Goal = Field(description="Direction in which the metric is better.")
    reference: float | None = Field(
        default=None, description="Reference point of the hypervolume: worse than this counts as nothing."
    )

    @property
    def sign(self) -> float:
        """Return the factor that turns the metric into a loss and a loss back into the metric."""
        return -1.0 if self.goal == "maximize" else 1.0

    @property
    def is_cost(self) -> bool:
        """Whether the metric measures cost, which spans orders of magnitude and is read on a logarithmic axis."""
        known = find(self.metric)
        return known is not None and known.is_cost
