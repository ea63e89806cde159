"""The claim of a study: as good as the dense model, within a margin, at a share of its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from routing.config.names import FULL_COMPUTE

ONE_POINT = 0.01
"""The margin: one percentage point of a share."""


@dataclass(frozen=True)
class Claim:
    """Places, in the sequence asked about, of the cheapest point within the margin and of the best dense one.

    ``share`` is the cost of the former in costs of the latter.
    """

    point: int
    dense: int
    share: float


def claim_of(models: Sequence[str], values: Sequence[float], costs: Sequence[float]) -> Claim | None:
    """Return the claim of operating points; None without a dense model.

    Args:
        models: name of every point's model.
        values: of a share (an accuracy) that is better where it is higher.
        costs: of every point, above 0.
    """
    dense = [place for place, model in enumerate(models) if model == FULL_COMPUTE and costs[place] > 0]
    if not dense:
        return None
    full = min(dense, key=lambda place: (-values[place], costs[place]))
    close = [place for place, value in enumerate(values) if value >= values[full] - ONE_POINT]
    point = min(close, key=lambda place: (costs[place], -values[place]))
    return Claim(point, full, costs[point] / costs[full])
