"""The figure of a front: every point, the front and the dense front, what was confirmed; drawing only."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.drawing import (
    CONFIRMED,
    FRONT,
    GREY,
    KNEE,
    WIDTHS,
    ColumnWidth,
    as_text,
    in_legend,
    new_figure,
    objective_axis,
    paper_style,
    place_legend,
    save,
    title,
)
from analysis.findings.attainment import PERCENTILES
from analysis.findings.fronts import dense_front, span
from analysis.findings.series import BLACK, looks_of, series
from analysis.findings.summary import Summary
from analysis.words.words import at_knob, axis_label, scale

FRONT_HEIGHTS: dict[ColumnWidth, float] = {"double": 3.6, "single": 4.2}


def draw_front(
    summary: Summary,
    formats: Iterable[str],
    folder: Path,
    width: ColumnWidth = "double",
    confirmed: pd.DataFrame | None = None,
    attained: pd.DataFrame | None = None,
) -> list[Path]:
    """Draw every point, the front, the front of the dense baselines and the knee: first objective against the second.

    Args:
        confirmed: points with intervals to add: ``x``, ``y``, ``y_low``, ``y_high`` and, one for all rows, ``label``
            and ``metric``.
        attained: a band to add, see ``attainment``.
    """
    if len(summary.results.objectives) < 2:
        return []
    with paper_style():
        figure = new_figure(WIDTHS[width], FRONT_HEIGHTS[width])
        axes = figure.add_subplot()
        front_points(axes, summary)
        if confirmed is not None and len(confirmed):
            task = summary.results.objectives[0].metric
            _confirmed_points(axes, confirmed, scale(task))
            if attained is not None and len(attained):
                _attained_band(axes, attained, scale(task))
            other = str(confirmed["metric"].iloc[0])
            if other != task:
                axes.set_ylabel(f"{axis_label(task)}; confirmed: {axis_label(other).split(' (')[0]}")
        _follow_front(axes, summary, confirmed)
        title(axes, summary.results.name)
        place_legend(figure, width)
        return save(figure, folder, "front", formats)


def front_points(axes: Axes, summary: Summary) -> None:
    """Draw the points series by series, both fronts and the knee, and name the axes."""
    objectives, points, front = summary.results.objectives, summary.results.points, summary.front
    task, cost = objectives[0], objectives[1]
    factor = scale(task.metric)
    names = series(points)
    for name, found in looks_of(points, names).items():
        own = points[names == name]
        axes.scatter(
            own[cost.metric],
            own[task.metric] * factor,
            s=44 if found.colour == BLACK else 26,
            c=found.colour if name else GREY,
            marker=found.marker,
            edgecolors="white",
            linewidths=0.4,
            zorder=5 if found.colour == BLACK else 3,
            label=textwrap.fill(in_legend(name or f"all operating points ({len(points)})"), 30),
        )
    by_two = len(objectives) == 2
    line: dict[str, Any] = {
        "drawstyle": "steps-post",
        "linestyle": "-" if by_two else "none",
        "marker": None if by_two else "o",
    }
    y = front[task.metric] * factor
    axes.plot(
        front[cost.metric], y, color=FRONT, markerfacecolor="none", zorder=4, label=f"front ({len(front)})", **line
    )
    dense = dense_front(summary)
    if by_two and len(dense) > 1:
        style: dict[str, Any] = {
            "drawstyle": "steps-post",
            "linestyle": "--",
            "linewidth": 1.1,
            "color": BLACK,
            "zorder": 4,
        }
        axes.plot(dense[cost.metric], dense[task.metric] * factor, label=f"dense front ({len(dense)})", **style)
    knee = summary.knee_row
    if knee is not None:
        axes.scatter(
            knee[cost.metric],
            knee[task.metric] * factor,
            s=150,
            facecolors="none",
            edgecolors=KNEE,
            linewidths=2,
            zorder=6,
            label=as_text(f"knee (trial {int(knee['trial'])}{at_knob(knee.to_dict())})"),
        )
    objective_axis(axes, "x", cost, points[cost.metric])
    objective_axis(axes, "y", task, points[task.metric])


def _follow_front(axes: Axes, summary: Summary, confirmed: pd.DataFrame | None) -> None:
    """Let the y axis show the fronts, and say how many points lie outside."""
    task = summary.results.objectives[0].metric
    shown = [confirmed["y_low"], confirmed["y_high"]] if confirmed is not None and len(confirmed) else []
    found = span(summary, pd.concat(shown) if shown else None)
    if found is None:
        return
    low, high = found
    values = summary.results.points[task]
    outside = int((~values.between(low, high)).sum())
    if not outside:
        return
    axes.set_ylim(low * scale(task), high * scale(task))
    axes.annotate(
        f"{outside} point{'s' if outside > 1 else ''} outside this range",
        (1, 0),
        (-3, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize=7,
        color="#57606a",
    )


def _confirmed_points(axes: Axes, confirmed: pd.DataFrame, y_scale: float) -> None:
    y = confirmed["y"].to_numpy(dtype=float)
    bars = np.abs(np.stack([y - confirmed["y_low"], confirmed["y_high"] - y])) * y_scale
    bars[bars == 0] = np.nan  # a bar without length is none
    axes.errorbar(
        confirmed["x"],
        y * y_scale,
        yerr=bars,
        fmt=CONFIRMED,
        markersize=8,
        markerfacecolor="white",
        color=BLACK,
        capsize=2,
        linewidth=1,
        zorder=7,
        label=textwrap.fill(str(confirmed["label"].iloc[0]), 32),
    )


def _attained_band(axes: Axes, attained: pd.DataFrame, y_scale: float) -> None:
    """Draw between what every seed reaches and what one of them does, and a line at what half of them reach."""
    some, half, every = (attained[attained["percentile"] == percent] for percent in PERCENTILES)
    costs = np.unique([*attained["x"], *axes.get_xlim()[1:]])  # what is reached stays reached at a higher cost
    limits = axes.get_xlim()
    top, middle, bottom = (_at(surface, costs) * y_scale for surface in (some, half, every))
    label = "reached on test by one seed to all"
    axes.fill_between(costs, bottom, top, step="post", color=KNEE, alpha=0.15, linewidth=0, zorder=1, label=label)
    axes.step(
        costs,
        middle,
        where="post",
        color=KNEE,
        linewidth=1,
        linestyle="--",
        zorder=1,
        label="reached by half of the seeds",
    )
    axes.set_xlim(limits)


def _at(surface: pd.DataFrame, costs: np.ndarray) -> np.ndarray:
    """Return the height of a surface at every cost, NaN below its cheapest point."""
    places = np.searchsorted(surface["x"].to_numpy(), costs, side="right") - 1
    heights = surface["y"].to_numpy(dtype=float)
    return np.where(places >= 0, heights[places], np.nan)
