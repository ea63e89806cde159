"""The configuration columns of a results table: which there are, which vary, and their values as YAML text."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from routing.config.script import CONFIG
from routing.errors import InputError
from routing.files.yaml_io import as_cell, parse_scalar

ROOT_KEYS = ("seed", "device", "precision", "threads", "plugins")


def config_keys(table: pd.DataFrame) -> list[str]:
    """Return the columns that are keys of a run's configuration (``seed``, ``model.router.mode``, ...)."""
    return [column for column in table.columns if column in ROOT_KEYS or "." in column]


def varied_keys(table: pd.DataFrame) -> list[str]:
    """Return the keys with more than one value among the rows that have them; never the seed."""
    return [key for key in config_keys(table) if key != "seed" and len(table[key].dropna().unique()) > 1]


def naming_keys(table: pd.DataFrame) -> list[str]:
    """Return the keys that tell a reader what ran: model and router, of a training script those that differ."""
    ours = [key for key in ("model.name", "model.router.mode") if key in table]
    return ours or [key for key in varied_keys(table) if key.startswith(f"{CONFIG}.")]


def searched_keys(study: dict[str, Any]) -> list[str]:
    """Return the keys that a resolved study searches; none of an ablation."""
    space = study.get("space")
    return [key for key in space if isinstance(key, str)] if isinstance(space, dict) else []


def as_searched(trials: pd.DataFrame, study: dict[str, Any], prefix: str = "") -> pd.DataFrame:
    """Return the trials with a searched key empty where its ``when`` does not hold.

    The configuration of such a trial has a value there, too: a default, or that of the study's base.

    Args:
        prefix: of the keys that are looked at (``model.router.``).
    """
    parents = {
        key: {name: accepted for name, accepted in _conditions(study, key).items() if name in trials}
        for key in searched_keys(study)
        if key in trials and key.startswith(prefix)
    }
    active = {key: pd.Series(True, index=trials.index) for key in parents}
    for key, conditions in parents.items():
        for name, accepted in conditions.items():
            active[key] &= _is_one_of(trials[name], accepted)
    for _ in active:  # a chain of conditions is no longer than the space
        for key, conditions in parents.items():
            for name in conditions:
                active[key] &= active.get(name, True)
    return trials.assign(**{key: trials[key].where(holds) for key, holds in active.items()})


def _is_one_of(cells: pd.Series, accepted: list[Any]) -> pd.Series:
    """Return which cells hold one of these values of a study; a column has many cells and few distinct ones."""
    texts = {yaml_value(as_cell(value)) for value in accepted}
    return cells.isin([cell for cell in cells.unique() if yaml_value(cell) in texts])


def _conditions(study: dict[str, Any], key: str) -> dict[str, list[Any]]:
    """Return parent -> accepted values of a searched key's ``when``; a damaged one counts as none."""
    declared = study["space"][key]
    when = declared.get("when") if isinstance(declared, dict) else None
    if not isinstance(when, dict):
        return {}
    return {str(parent): value if isinstance(value, list) else [value] for parent, value in when.items()}


def yaml_value(value: Any) -> str | None:
    """Return a table's cell as the YAML value that a config takes, None where the cell is empty.

    A whole column of integers with gaps is read as floats: 8.0 is written 8, which a float key takes as well.
    """
    if value is None or (isinstance(value, float) and pd.isna(value)) or value is pd.NA:
        return None
    if isinstance(value, str):
        return value if _is_plain(value) else json.dumps(value, ensure_ascii=False)
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def _is_plain(text: str) -> bool:
    """Whether text stands for itself in YAML, or is the list that a table cell holds."""
    try:
        parsed = parse_scalar(text, "cell")
    except InputError:
        return False
    return parsed == text or isinstance(parsed, list)


def knob_value(value: Any) -> Any:
    """Return a knob's value as the number or the text it was: a column that holds both is read as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
