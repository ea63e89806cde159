"""Names, units and numbers of quantities as the figures, tables and report page write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from routing.config.script import CONFIG
from routing.files.results_folder import STATE_WORDS
from routing.quantities import count, find, in_words, label

__all__ = ["axis_label", "count", "name", "plain", "scale", "shown", "state_in_words"]

_KEY = re.compile(r"\b(?:model|dataset|training|evaluation|config)\.([a-z][\w.]*)")
"""A key of a configuration in the name of an arm, without its section."""


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


def shown(metric: str, value: Any) -> str:
    """Return a metric's value with its unit; an empty string where there is none."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    number = float(value)
    if math.isnan(number):
        return ""
    return in_words(metric, number)


def of_script(row: Mapping[Any, Any], keys: Iterable[str]) -> str:
    """Return the keys of a training script with their values: ``lr 0.0116, width 45``; empty of our own models."""
    own = {key.removeprefix(f"{CONFIG}."): row.get(key) for key in keys if key.startswith(f"{CONFIG}.")}
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, (int, float)) else f"{key} {value}"
        for key, value in own.items()
        if value is not None and value == value
    )


def at_knob(row: Mapping[Any, Any]) -> str:
    """Return where on its curve a row of points.csv lies: ``, threshold 0.5``; empty without a knob."""
    knob, value = row.get("knob"), row.get("knob_value")
    if not isinstance(knob, str) or value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    number = value if isinstance(value, (int, float)) else _number_in(str(value))
    if number is None:
        return f", {value}"  # scales=2,crops=1 names itself
    return f", {knob} {number:.4g}"


def who(row: Mapping[Any, Any]) -> str:
    """Return which point a row of points.csv is: ``trial 5 aacn top_k, threshold 0.5``."""
    models = (row.get(key) for key in ("model.name", "model.router.mode"))
    words = [f"trial {int(row['trial'])}", *(word for word in models if isinstance(word, str) and word)]
    return " ".join(words) + at_knob(row)


def _number_in(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def plain(key: str) -> str:
    """Return a key as a reader of a paper sees it: ``full compute``."""
    return key.replace("_", " ")


def arm_in_words(arm: Any) -> str:
    """Return an arm's name without raw keys: ``router mode=top_k`` for ``model.router.mode=top_k``."""
    return _KEY.sub(lambda found: found[1].replace(".", " ").replace("_", " "), str(arm))


def state_in_words(state: Any) -> str:
    """Return the state of a trial as people read it; an unknown one as it is."""
    return STATE_WORDS.get(str(state), str(state).lower())
