"""What every operating point is drawn as: name, colour and shape of its series, the same in every chart and figure.

Dense baselines are black and told apart by their shape; colours (Okabe and Ito's) are for everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.findings.baselines import is_baseline
from analysis.read.configs import varied_keys
from analysis.words.words import arm_in_words
from routing.config.names import CHEAP_COMPUTE, DENSE_MATCHED, FULL_COMPUTE, NO_ROUTING
from routing.files.results_folder import ARM

BLACK = "#000000"
DENSE_MARKERS = {
    FULL_COMPUTE: "s",
    "full_conv": "s",
    DENSE_MATCHED: "P",
    NO_ROUTING: "^",
    CHEAP_COMPUTE: "D",
    "cheap_conv": "D",
}
OTHER_DENSE_MARKERS = ("h", "8", "H")
"""Shapes of other dense baselines, and of one whose shape another series has."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
MARKERS = ("o", "v", "X", "*", "<", ">", "d")
"""Shapes, by matplotlib's names; none is that of a dense baseline or of a confirmed point."""
MOST = 14
"""Series beyond which points are told apart by less."""


@dataclass(frozen=True)
class Look:
    """Colour and shape (matplotlib's name of it) of a series."""

    colour: str
    marker: str


def look(index: int) -> Look:
    """Return the look of a series: after a round of colours the shapes shift, so that no two look alike."""
    turn, place = divmod(index, len(COLOURS))
    return Look(COLOURS[place], MARKERS[(index + turn) % len(MARKERS)])


def looks(names: list[str], dense: dict[str, str] | None = None) -> dict[str, Look]:
    """Return the look of every series.

    Args:
        names: of the series, in the order in which colours are given.
        dense: series of one dense baseline -> name of its model; default: those that are called like one.
    """
    dense = {name: name for name in names if name in DENSE_MARKERS} if dense is None else dense
    found: dict[str, Look] = {}
    taken = set()
    for name in (name for name in names if name in dense):
        own = DENSE_MARKERS.get(dense[name])
        free = [marker for marker in (own, *OTHER_DENSE_MARKERS) if marker and marker not in taken]
        if free:
            taken.add(free[0])
            found[name] = Look(BLACK, free[0])
    others = [name for name in names if name not in found]
    return found | {name: look(index) for index, name in enumerate(others)}


def series(points: pd.DataFrame, most: int = MOST) -> pd.Series:
    """Return the name of each point's series.

    The arms of an ablation; else, of a dense baseline, its model; of conditional models the model (where there are
    several) with the modes that vary (``model.router.mode``, ``model.fusion.mode``); the model alone where that makes
    more than ``most`` series.
    """
    if ARM in points and points[ARM].notna().any():
        arms = points[ARM].astype(object).where(points[ARM].notna(), "").astype(str)
        if arms.nunique() <= most:
            return arms.map(arm_in_words)
    if "model.name" not in points:
        return pd.Series("", index=points.index, dtype=object)
    models = points["model.name"].astype(object).where(points["model.name"].notna(), "").astype(str)
    conditional = points[~is_baseline(points)]
    modes = [key for key in varied_keys(conditional) if key.endswith(".mode")]
    parts = pd.DataFrame({key: points[key].where(points.index.isin(conditional.index)) for key in modes})
    if len(set(models[conditional.index])) > 1 or not modes:
        parts.insert(0, "model", models)
    else:
        parts.insert(0, "model", models.where(parts.isna().all(axis=1)))
    names = parts.apply(lambda row: " · ".join(str(part) for part in row if not pd.isna(part)), axis=1)
    names = names.astype(object) if len(points) else models
    return names if names.nunique() <= most else models


def looks_of(points: pd.DataFrame, names: pd.Series) -> dict[str, Look]:
    """Return the look of every series of ``series``, conditional models in alphabetical order."""
    is_dense = is_baseline(points)
    dense = {}
    for name, rows in points.groupby(names, sort=True):
        models = set(rows["model.name"]) if is_dense[rows.index].all() else set()
        if len(models) == 1:
            dense[str(name)] = str(models.pop())
    return looks(sorted(names.unique()), dense)
