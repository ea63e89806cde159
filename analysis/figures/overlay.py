"""The fronts of several studies over each other; drawing only, all values are computed elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.figures.drawing import (
    WIDTHS,
    ColumnWidth,
    as_text,
    new_figure,
    objective_axis,
    paper_style,
    place_legend,
    save,
)
from analysis.findings.series import look
from analysis.words.words import scale
from routing.objectives import Objective


@dataclass(frozen=True)
class Surface:
    """A study's front in metric values (columns named after the objectives), ordered by cost.

    ``middle`` is what half of the ``repeats`` attained; ``best`` (any of them) and ``worst`` (all) are its band, None
    for a single run.
    """

    name: str
    repeats: int
    middle: pd.DataFrame
    best: pd.DataFrame | None
    worst: pd.DataFrame | None


def draw_overlay(
    surfaces: Sequence[Surface],
    objectives: Sequence[Objective],
    formats: Iterable[str],
    folder: Path,
    width: ColumnWidth = "double",
) -> list[Path]:
    """Draw the front of every study, with the band between best and worst attainment where it was repeated."""
    if not surfaces:
        return []
    task, cost = objectives[0], objectives[1]
    factor = scale(task.metric)
    everything = pd.concat([part for s in surfaces for part in (s.middle, s.best, s.worst) if part is not None])
    right = everything[cost.metric].max()
    with paper_style():
        figure = new_figure(WIDTHS[width], 3.6 if width == "double" else 4.2)
        axes = figure.add_subplot()
        # a line may be empty: most repeats reached nothing that may be chosen
        axes.update_datalim(everything[[cost.metric, task.metric]].to_numpy() * [1.0, factor])
        for index, surface in enumerate(surfaces):
            style = look(index)
            repeats = f" (by most of {surface.repeats})" if surface.repeats > 1 else ""
            axes.plot(
                surface.middle[cost.metric],
                surface.middle[task.metric] * factor,
                drawstyle="steps-post",
                marker=style.marker,
                markersize=4,
                color=style.colour,
                label=as_text(surface.name + repeats),
            )
            if surface.best is not None and surface.worst is not None and len(surface.worst):
                upper, lower = _staircase(surface.best, cost, right), _staircase(surface.worst, cost, right)
                x = sorted({*upper[cost.metric], *lower[cost.metric]})
                high = upper.set_index(cost.metric)[task.metric].reindex(x).ffill() * factor
                low = lower.set_index(cost.metric)[task.metric].reindex(x).ffill() * factor
                axes.fill_between(x, low, high, step="post", color=style.colour, alpha=0.2, linewidth=0)
        objective_axis(axes, "x", cost, everything[cost.metric])
        objective_axis(axes, "y", task, everything[task.metric])
        place_legend(figure, width)
        return save(figure, folder, "overlay", formats)


def _staircase(front: pd.DataFrame, cost: Objective, right: float) -> pd.DataFrame:
    """Return the front drawn on to the right edge, each cost once."""
    last = front.iloc[-1:].assign(**{cost.metric: right})
    return pd.concat([front, last]).drop_duplicates(cost.metric, keep="first")
