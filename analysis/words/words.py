"""Names, units and numbers of quantities as the figures, tables and report page write them."""

from __future__ import annotations

import math
from typing import Any

from routing.quantities import find, label


def scale(metric: str) -> float:
    """Return the factor from the stored value to the shown one (100 for shares shown in percent)."""
    known = find(metric)
    return 1.0 if known is None else known.factor


def name(metric: str) -> str:
    """Return ``"validation accuracy"``, the name of a metric."""
    return label(metric)


def axis_label(metric: str) -> str:
    """Return ``"validation accuracy (%)"``, the name and unit of a metric."""
    known = find(metric)
    return f"{label(metric)} ({known.unit})" if known is not None and known.unit else label(metric)


def count(value: float) -> str:
    """Return a count of multiply-adds or parameters with three digits: ``312 k``, ``1.40 M``, ``4.60 G``."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
            return f"{scaled:.{digits}f} {letter}"
    return f"{value:.0f}"


def shown(metric: str, value: Any) -> str:
    """Return a metric's value with its unit; an empty string where there is none."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    number = float(value)
    if math.isnan(number):
        return ""
    known = find(metric)
    if known is None:
        return f"{number:.4g}"
    text = count(number) if known.is_count else known.shown(number)
    return text if known.is_count or not known.unit else f"{text} {known.unit}"
