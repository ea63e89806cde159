"""Figures of a study as a whole: front, hypervolume, ablation; drawing only, all values are computed elsewhere."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.drawing import (
    BASELINE_STYLES,
    BLACK,
    COLOURS,
    CONFIRMED,
    FRONT,
    GREY,
    KNEE,
    MARKERS,
    OTHER_BASELINE,
    WIDTHS,
    ColumnWidth,
    as_text,
    cost_axis,
    new_figure,
    paper_style,
    place_legend,
    save,
)
from analysis.findings.attainment import PERCENTILES
from analysis.findings.families import kinds
from analysis.findings.summary import Summary
from analysis.words.words import at_knob, axis_label, scale
from routing.files.results_folder import ARM
from routing.objectives import Objective, scales_in_words


def draw_front(
    summary: Summary,
    formats: Iterable[str],
    folder: Path,
    width: ColumnWidth = "double",
    confirmed: pd.DataFrame | None = None,
    attained: pd.DataFrame | None = None,
) -> list[Path]:
    """Draw every point, the front, baselines and knee: first objective against the second.

    Points have the colour and shape of what tells them apart (``families.kinds``) while there are colours enough.
    ``confirmed`` adds points with intervals: ``x``, ``y``, ``y_low``, ``y_high`` and, one for all rows, ``label`` and
    ``metric``; ``attained`` a band, see ``attainment``.
    """
    if len(summary.results.objectives) < 2:
        return []
    with paper_style():
        figure = new_figure(WIDTHS[width], 3.6 if width == "double" else 4.2)
        axes = figure.add_subplot()
        _front_points(axes, summary)
        if confirmed is not None and len(confirmed):
            task = summary.results.objectives[0].metric
            _confirmed_points(axes, confirmed, scale(task))
            if attained is not None and len(attained):
                _attained_band(axes, attained, scale(task))
            other = str(confirmed["metric"].iloc[0])
            if other != task:
                axes.set_ylabel(f"{axis_label(task)}; confirmed: {axis_label(other).split(' (')[0]}")
        axes.set_title(as_text(summary.results.name))
        place_legend(figure, width)
        return save(figure, folder, "front", formats)


def _front_points(axes: Axes, summary: Summary) -> None:
    objectives, points, front = summary.results.objectives, summary.results.points, summary.front
    task, cost = objectives[0], objectives[1]
    y_scale = scale(task.metric)
    told_apart = kinds(points, most=len(COLOURS))
    if told_apart is not None:
        _points_by_kind(axes, points, told_apart, task, cost)
    others = points if told_apart is None else points[told_apart.isna()]
    if len(others):
        label = f"all operating points ({len(points)})" if told_apart is None else "dense, other settings"
        x, y = others[cost.metric], others[task.metric] * y_scale
        axes.scatter(x, y, s=10, c=GREY, linewidths=0, alpha=0.7, zorder=2, label=label)
    if told_apart is None or told_apart.name != ARM:
        _baselines(axes, summary.baselines, task, cost, in_colour=told_apart is None)
    axes.plot(
        front[cost.metric],
        front[task.metric] * y_scale,
        drawstyle="steps-post",
        linestyle="-" if len(objectives) == 2 else "none",
        linewidth=None if told_apart is None else 1,
        marker="o" if told_apart is None or len(objectives) != 2 else None,
        markerfacecolor=None if told_apart is None else "none",
        color=FRONT if told_apart is None else BLACK,
        zorder=4 if told_apart is None or len(objectives) != 2 else 2,
        label=f"front ({len(front)})",
    )
    knee = summary.knee_row
    if knee is not None:
        axes.scatter(
            knee[cost.metric],
            knee[task.metric] * y_scale,
            s=150,
            facecolors="none",
            edgecolors=KNEE if told_apart is None else BLACK,
            linewidths=2,
            zorder=6,
            label=as_text(f"knee (trial {int(knee['trial'])}{at_knob(knee.to_dict())})"),
        )
    cost_axis(axes, cost, points[cost.metric])
    axes.set_ylabel(axis_label(task.metric))


def _points_by_kind(axes: Axes, points: pd.DataFrame, kind: pd.Series, task: Objective, cost: Objective) -> None:
    for value, colour, marker in zip(kind.dropna().unique(), COLOURS, MARKERS, strict=False):
        own = points[kind == value]
        label = textwrap.fill(as_text(str(value)), 30)
        x, y = own[cost.metric], own[task.metric] * scale(task.metric)
        axes.scatter(x, y, s=30, c=colour, marker=marker, edgecolors="white", linewidths=0.4, zorder=3, label=label)


def _baselines(axes: Axes, baselines: pd.DataFrame, task: Objective, cost: Objective, in_colour: bool) -> None:
    """Draw the best point of each baseline: in its colour, or in black where colours tell other points apart."""
    for _, row in baselines.iterrows():
        marker, colour = BASELINE_STYLES.get(row["model.name"], OTHER_BASELINE)
        axes.scatter(
            row[cost.metric],
            row[task.metric] * scale(task.metric),
            marker=marker,
            s=60 if in_colour else 75,
            c=colour if in_colour else BLACK,
            edgecolors="white",
            linewidths=0.8,
            zorder=5,
            label=row["model.name"],
        )


def _confirmed_points(axes: Axes, confirmed: pd.DataFrame, y_scale: float) -> None:
    y = confirmed["y"].to_numpy(dtype=float)
    bars = np.abs(np.stack([y - confirmed["y_low"], confirmed["y_high"] - y])) * y_scale
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
        label=str(confirmed["label"].iloc[0]),
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


def draw_hypervolume(
    summary: Summary, formats: Iterable[str], folder: Path, width: ColumnWidth = "double"
) -> list[Path]:
    """Draw how the hypervolume grew over trials and over seconds spent training."""
    history = summary.history
    if history.empty:
        return []
    with paper_style():
        wide = width == "double"
        figure = new_figure(WIDTHS[width], 2.8 if wide else 4.4)
        left, right = figure.subplots(1, 2, sharey=True) if wide else figure.subplots(2, 1, sharey=True)
        for axes, column, label in (
            (left, "number", "trial number"),
            (right, "train_seconds", "training, sum over trials (s)"),
        ):
            axes.step(history[column], history["hypervolume"], where="post")
            axes.plot(history[column].iloc[-1:], history["hypervolume"].iloc[-1:], "o", color=FRONT)
            axes.set_xlabel(label)
        left.set_ylabel(f"hypervolume ({scales_in_words(summary.results.objectives)})")
        left.xaxis.get_major_locator().set_params(integer=True)
        return save(figure, folder, "hypervolume", formats)


def draw_forest(
    compared: pd.DataFrame,
    objective: Objective,
    formats: Iterable[str],
    folder: Path,
    width: ColumnWidth = "double",
) -> list[Path]:
    """Draw the paired difference of every arm to the baseline with its interval; rows of ``compare_arms``."""
    metric = objective.metric
    rows = compared[compared["pairs"].gt(0) & ~compared["is_baseline"]]
    if rows.empty:
        return []
    baseline = compared.loc[compared["is_baseline"], ARM].iloc[0]
    factor = scale(metric)
    with paper_style():
        figure = new_figure(WIDTHS[width], 1.1 + 0.28 * len(rows))
        axes = figure.add_subplot()
        for place, (_, row) in enumerate(rows.iloc[::-1].iterrows()):
            clear = row["verdict"] in ("better", "worse")
            colour = FRONT if clear else "#767676"
            bounds = [row[f"{metric}_diff_low"] * factor, row[f"{metric}_diff_high"] * factor]
            axes.plot(bounds, [place, place], color=colour, linewidth=1.6)
            middle = row[f"{metric}_diff"] * factor
            axes.plot(middle, place, "o", color=colour, markerfacecolor=colour if clear else "white")
        axes.axvline(0, color=BLACK, linewidth=0.8)
        names = [as_text(f"{arm} (n={n})") for arm, n in zip(rows[ARM], rows["pairs"], strict=True)]
        axes.set_yticks(range(len(rows)), names[::-1])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        unit = "percentage points" if factor == 100 else axis_label(metric)
        difference = f"arm minus {baseline} ({unit})"
        if width == "double":
            difference = f"{axis_label(metric).split(' (')[0]}: {difference}, paired by seed, 95 % interval"
        axes.set_xlabel(as_text(textwrap.fill(difference, 90 if width == "double" else 45)))
        axes.grid(axis="y", visible=False)
        return save(figure, folder, "forest", formats)
