"""Objectives of a study as columns of a table; everywhere else in ``analysis`` lower is better."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from routing.errors import InputError
from routing.objectives import Objective, losses_of, reference_of, values_of
from routing.quantities import declare_measured

DEFAULT = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.0),
    Objective(metric="flops", goal="minimize"),
)


def objectives_of(study: dict[str, Any]) -> tuple[Objective, ...]:
    """Return the objectives a resolved study declares; accuracy against FLOPs when it declares none.

    Raises:
        InputError: an objective without a metric, or with a goal that is neither maximize nor minimize.
    """
    declared = study.get("objectives")
    if not declared:
        return DEFAULT
    if not isinstance(declared, list):
        raise InputError(f"study.yaml: objectives is a list of metric, goal and reference, not {declared!r}")
    return tuple(_objective(entry) for entry in declared)


def _objective(entry: Any) -> Objective:
    if not isinstance(entry, dict) or not isinstance(entry.get("metric"), str):
        raise InputError(f"study.yaml: objectives: {entry!r} names no metric")
    goal = entry.get("goal")
    if goal not in ("maximize", "minimize"):
        raise InputError(f"study.yaml: objectives: goal of {entry['metric']} is {goal!r} (valid: maximize, minimize)")
    reference = entry.get("reference")
    if reference is not None and not _is_finite(reference):
        raise InputError(f"study.yaml: objectives: reference of {entry['metric']} is not a number: {reference!r}")
    if "cost" in entry:  # of a training script, which nothing else knows
        declare_measured(entry["metric"], goal, entry["cost"] is True)
    return Objective.model_validate(
        {"metric": entry["metric"], "goal": goal, "reference": reference} | _scale(entry, reference)
    )


def _scale(entry: dict[str, Any], reference: float | None) -> dict[str, str]:
    """Return the declared scale; none where the quantity's own holds, as in a study of before 0.2."""
    declared, has_logarithm = entry.get("scale"), reference is None or reference > 0
    if declared is None:
        return {} if has_logarithm else {"scale": "linear"}
    if declared not in ("linear", "log") or not (has_logarithm or declared == "linear"):
        raise InputError(f"study.yaml: objectives: scale of {entry['metric']} is {declared!r} (valid: linear, log)")
    return {"scale": declared}


def declares_scales(study: dict[str, Any]) -> bool:
    """Return whether a study says on which scales its fronts are measured; older ones were measured on linear ones."""
    declared = study.get("objectives")
    return isinstance(declared, list) and all("scale" in entry for entry in declared if isinstance(entry, dict))


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def measured(table: pd.DataFrame, objectives: Sequence[Objective]) -> NDArray[np.bool_]:
    """Return which rows (N,) have a number for every objective."""
    columns = [objective.metric for objective in objectives]
    if any(column not in table for column in columns):
        return np.zeros(len(table), dtype=bool)
    return table[columns].apply(pd.to_numeric, errors="coerce").notna().all(axis=1).to_numpy(dtype=bool)


def losses(table: pd.DataFrame, objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return the loss vectors (N, M) of the rows on the objectives' scales, lower is better in every column."""
    return losses_of(table[[objective.metric for objective in objectives]].to_numpy(dtype=float), objectives)


def best_first(table: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Return the rows ordered by the first objective, where equal by the next ones."""
    vectors = losses(table, objectives)
    return table.iloc[pd.DataFrame(vectors).sort_values(list(range(vectors.shape[1])), kind="stable").index]


def metrics(loss_vectors: NDArray[np.float64], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return loss vectors (N, M) or one of them (M,), as metric values again: the inverse of ``losses``."""
    return values_of(loss_vectors, objectives)


def reference_losses(loss_vectors: NDArray[np.float64], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return the reference point (M,) as losses; an undeclared reference is the worst value seen."""
    worst = loss_vectors.max(axis=0) if len(loss_vectors) else np.zeros(len(objectives))
    declared = reference_of(objectives)
    return np.where(np.isnan(declared), worst, declared)
