"""Columns of a table as JSON holds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.read.configs import yaml_value


def has_numbers(values: pd.Series) -> bool:
    """Return whether anything in a column is a number."""
    return bool(pd.to_numeric(values, errors="coerce").notna().any())


def numbers(values: Iterable[Any]) -> list[float | int | None]:
    """Return numbers with seven digits, None for NaN: a page is read by people, the tables keep every digit."""
    cleaned = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(dtype=float)
    return [_short(value) if np.isfinite(value) else None for value in cleaned]


def _short(value: float) -> float | int:
    rounded = float(f"{value:.7g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def dictionary(values: pd.Series, plain: bool = False) -> dict[str, list[Any]]:
    """Return a column as its distinct texts and an index into them per row, -1 where empty.

    Args:
        plain: texts as they are, for prose; else as YAML, so that a configuration can be copied.
    """
    codes, distinct = pd.factorize(values.astype(object), use_na_sentinel=True)
    texts = [str(value) if plain and isinstance(value, str) else yaml_value(value) for value in distinct]
    return {"values": texts, "codes": codes.tolist()}
