"""Names, units and numbers as people read them: one place for figures, tables and the report page."""

from __future__ import annotations

import math
from typing import Any

LABELS = {
    "val_accuracy": ("validation accuracy", "%", 100.0),
    "test_accuracy": ("test accuracy", "%", 100.0),
    "val_top5_accuracy": ("validation top-5 accuracy", "%", 100.0),
    "val_loss": ("validation loss", "", 1.0),
    "val_srcc": ("validation SRCC", "", 1.0),
    "val_plcc": ("validation PLCC", "", 1.0),
    "test_srcc": ("test SRCC", "", 1.0),
    "test_plcc": ("test PLCC", "", 1.0),
    "flops": ("compute", "multiply-adds per image", 1.0),
    "ms_per_image": ("inference time", "ms per image", 1.0),
    "params": ("parameters", "", 1.0),
    "routing_ratio": ("routing ratio", "", 1.0),
    "train_seconds": ("training", "s", 1.0),
}
SHARES_OF_IMAGES = ("val_accuracy", "val_top5_accuracy")
"""Metrics that are a share of all validation images: their error is that of a binomial."""
COUNTS = ("flops", "flops_p5", "flops_p95", "flops_dense", "params")


def scale(metric: str) -> float:
    """Return the factor from the stored value to the shown one (100 for shares shown in percent)."""
    return LABELS.get(metric, ("", "", 1.0))[2]


def name(metric: str) -> str:
    """Return ``"validation accuracy"``, the name of a metric."""
    return LABELS[metric][0] if metric in LABELS else metric.replace("_", " ")


def axis_label(metric: str) -> str:
    """Return ``"validation accuracy (%)"``, the name and unit of a metric."""
    unit = LABELS.get(metric, ("", "", 1.0))[1]
    return f"{name(metric)} ({unit})" if unit else name(metric)


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
    if metric in COUNTS:
        return count(number)
    _, unit, factor = LABELS.get(metric, ("", "", 1.0))
    if unit == "%":
        return f"{number * factor:.2f} %"
    text = f"{number * factor:.4g}"
    return f"{text} {unit}" if unit else text
