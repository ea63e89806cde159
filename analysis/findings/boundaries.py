"""Front points at the edge of a declared range: a sign that the range is too narrow."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.findings.summary import Summary
from analysis.read.configs import as_searched

EDGE = 0.05
SHARE = 0.25


def boundary_warnings(summary: Summary) -> list[str]:
    """Return a line per searched parameter whose range the front pushes against.

    A value lies at an edge when it is within 5 % of the range (of its logarithm for log ranges) of a bound; a
    parameter is reported when a quarter of the front's trials that have it, and at least two, lie at the same edge.
    """
    space = summary.results.study.get("space")
    if not isinstance(space, dict) or summary.front.empty:
        return []
    trials = as_searched(summary.front.drop_duplicates("trial"), summary.results.study)
    lines = []
    for key, declared in space.items():
        bounds = _range(declared)
        if bounds is None or key not in trials:
            continue
        values = pd.to_numeric(trials[key], errors="coerce").dropna()
        for edge, positions in (("lower", 0.0), ("upper", 1.0)):
            near = sum(abs(_position(value, *bounds) - positions) <= EDGE for value in values)
            if near >= max(2, SHARE * len(values)):
                bound = bounds[0] if edge == "lower" else bounds[1]
                lines.append(
                    f"{near} of {len(values)} trials on the front lie at the {edge} edge of {key} ({bound:g}): "
                    "a wider range may hold better points."
                )
    return lines


def _range(declared: Any) -> tuple[float, float, bool] | None:
    """Return low, high and log of a declared numeric range, None for anything else."""
    if not isinstance(declared, dict):
        return None
    bounds = declared.get("float", declared.get("int"))
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        return None
    low, high = bounds
    if not all(isinstance(b, (int, float)) for b in (low, high)) or not low < high:
        return None
    return float(low), float(high), bool(declared.get("log")) and low > 0


def _position(value: float, low: float, high: float, log: bool) -> float:
    """Return where a value lies between low (0) and high (1)."""
    if log:
        value, low, high = math.log(max(value, 1e-300)), math.log(low), math.log(high)
    return (value - low) / (high - low)
