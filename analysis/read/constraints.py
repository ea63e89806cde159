"""Which points of a results folder can be chosen: by the study's constraints, and by what their models are told."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from routing.config.names import ORACLE, ROUTER_MODE
from routing.constraints import Constraint
from routing.files.results_folder import POINTS_FILE, STUDY_FILE, VIOLATES


def allowed(points: pd.DataFrame, constraints: Any) -> pd.Series:
    """Return which rows can be on a front: no oracle's, and none that breaks a constraint of the study file."""
    return _keeps(points, constraints) & ~_is_told(points)


def _is_told(points: pd.DataFrame) -> pd.Series:
    """Return which rows are of an oracle: it is told what an image alone does not say."""
    none = pd.Series(False, index=points.index, dtype=bool)
    return points[ROUTER_MODE].eq(ORACLE) if ROUTER_MODE in points else none


def _keeps(points: pd.DataFrame, constraints: Any) -> pd.Series:
    """Return which rows keep to every constraint.

    One that cannot be read here (its metric may be a plugin's) is broken where the column ``violates`` says so.
    """
    kept = pd.Series(True, index=points.index, dtype=bool)
    for text in _texts(constraints):
        limit = _limit(text)
        if not isinstance(limit, str):
            kept &= _holds(limit, points)
        elif VIOLATES in points:
            kept &= points[VIOLATES].astype(str) != text
    return kept


def why_none(points: pd.DataFrame, constraints: Any = None) -> str:
    """Return why none of these points can be on a front."""
    told, limits = _is_told(points), ", ".join(_texts(constraints))
    if told.all():
        return "every point is an oracle's, which is told where to look"
    also = ", or is an oracle's" if told.any() else ""
    return f"every point breaks a constraint{f' ({limits})' if limits else ''}{also}"


def problems_of(points: pd.DataFrame, constraints: Any) -> list[str]:
    """Return a line on every constraint that cannot be read, and on the points that cannot be on the front for what."""
    texts, lines = _texts(constraints), []
    if constraints and not isinstance(constraints, (list, tuple)):
        lines.append(f"{STUDY_FILE}: constraints: a list as in ['flops <= 1.0e6'], not {constraints!r}; it is left out")
    elif len(texts) < len(constraints or ()):
        wrong = ", ".join(repr(one) for one in constraints if not isinstance(one, str))
        lines.append(f"{STUDY_FILE}: constraints: texts as in 'flops <= 1.0e6', not {wrong}; left out")
    for why in (limit for limit in map(_limit, texts) if isinstance(limit, str)):
        known = VIOLATES in points
        then = f"what breaks it is read from {VIOLATES} of {POINTS_FILE}" if known else "it is left out"
        lines.append(f"{STUDY_FILE}: {why}; {then}")
    told = int(_is_told(points).sum())
    if told:
        lines.append(f"{told} of {len(points)} points are an oracle's, which is told where to look: not on the front")
    broken = int((~_keeps(points, constraints)).sum())
    if broken:
        limits = ", ".join(texts)
        lines.append(f"{broken} of {len(points)} points break a constraint ({limits}) and are not on the front")
    return lines


def _texts(constraints: Any) -> list[str]:
    return [one for one in constraints if isinstance(one, str)] if isinstance(constraints, (list, tuple)) else []


def _limit(text: str) -> Constraint | str:
    """Return the constraint, or why it cannot be read."""
    try:
        return Constraint.of(text)
    except ValueError as error:
        return str(error)


def _holds(limit: Constraint, points: pd.DataFrame) -> pd.Series:
    if limit.metric not in points:
        return pd.Series(False, index=points.index)
    values = pd.to_numeric(points[limit.metric], errors="coerce").astype(float)
    return values.map(lambda value: math.isfinite(value) and limit.holds(value)).astype(bool)
