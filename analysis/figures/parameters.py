"""Figures of single parameters: slices, knob and grid-size curves, parallel coordinates, importance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter

from analysis.figures.drawing import (
    FRONT,
    GREY,
    WIDTHS,
    ColumnWidth,
    as_text,
    in_legend,
    log_ticks,
    new_figure,
    paper_style,
    save,
    title,
)
from analysis.findings.effects import ParallelAxis, is_few_counts, is_number, spans_decades
from analysis.findings.importance import split_estimated
from analysis.findings.series import BLACK, COLOURS, look, looks
from analysis.words.words import axis_label, scale
from routing.objectives import Objective

KNOB_CURVES = "sensitivity_"
"""Begin of the names of figures of a knob."""


def draw_slices(
    trials: pd.DataFrame,
    keys: list[str],
    on_front: set[int],
    objective: Objective,
    formats: Iterable[str],
    folder: Path,
    width: ColumnWidth = "double",
) -> list[Path]:
    """Draw the objective of every finished trial against each key; trials on the front stand out."""
    if not keys or trials.empty:
        return []
    columns = min(len(keys), 3 if width == "double" else 1)
    lines = math.ceil(len(keys) / columns)
    with paper_style():
        figure = new_figure(WIDTHS[width], 2.1 * lines + 0.3)
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
        front = trials["number"].isin(on_front)
        for axes, key in zip(panels, keys, strict=False):
            for rows, colour, label in ((trials[~front], GREY, "other trials"), (trials[front], FRONT, "on the front")):
                _slice(axes, rows, trials[key], key, objective, colour, label)
            axes.set_xlabel(as_text(key.removeprefix("model.").removeprefix("dataset.")))
        for axes in panels[len(keys) :]:
            axes.remove()
        for axes in panels[: len(keys) : columns]:
            axes.set_ylabel(axis_label(objective.metric))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
        return save(figure, folder, "slices", formats)


def _slice(
    axes: Axes, rows: pd.DataFrame, all_values: pd.Series, key: str, objective: Objective, colour: str, label: str
) -> None:
    rows = rows[rows[key].notna()]
    y = rows[objective.metric].astype(float) * scale(objective.metric)
    if is_number(all_values) and not is_few_counts(all_values):
        axes.scatter(pd.to_numeric(rows[key]), y, s=12, c=colour, linewidths=0, label=label)
        if spans_decades(all_values):
            numbers = pd.to_numeric(all_values).dropna()
            log_ticks(axes, "x", float(numbers.max() / numbers.min()))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # settings, not counts
        return
    levels = sorted(all_values.dropna().unique())
    places = {level: place for place, level in enumerate(levels)}
    shift = -0.12 if colour == GREY else 0.12
    axes.scatter([places[v] + shift for v in rows[key]], y, s=12, c=colour, linewidths=0, label=label)
    names = [as_text(f"{level:g}" if isinstance(level, float) else str(level)) for level in levels]
    if sum(map(len, names)) > 18:
        axes.set_xticks(range(len(levels)), [name.replace("_", "\n") for name in names], fontsize=6)
    else:
        axes.set_xticks(range(len(levels)), names)
    axes.set_xlim(-0.5, len(levels) - 0.5)


def draw_knob_curves(
    knob: str,
    curves: list[pd.DataFrame],
    on_front: set[int],
    objective: Objective,
    formats: Iterable[str],
    folder: Path,
    width: ColumnWidth = "double",
) -> list[Path]:
    """Draw the effect of a trained model's knob on its objective, and on its routing ratio or compute."""
    second = "routing_ratio" if all(curve["routing_ratio"].notna().any() for curve in curves) else "flops"
    with paper_style():
        wide = width == "double"
        figure = new_figure(WIDTHS[width], 2.9 if wide else 4.6)
        panels = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
        numbers = [int(curve["trial"].iloc[0]) for curve in curves]
        named = [number for number in numbers if number in on_front]
        styles = (
            {number: look(index).colour for index, number in enumerate(named)} if len(named) <= len(COLOURS) else {}
        )
        for axes, metric in zip(panels, (objective.metric, second), strict=True):
            for number, curve in sorted(zip(numbers, curves, strict=True), key=lambda one: one[0] in on_front):
                front = number in on_front
                label = f"trial {number}" if number in styles else "trials on the front" if front else "other trials"
                _knob_curve(axes, curve, metric, styles.get(number, FRONT if front else GREY), label)
            axes.set_xlabel(as_text(knob))
            axes.set_ylabel(axis_label(metric))
        handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
        title = "coloured: on the front" if styles else None
        figure.legend(handles.values(), handles.keys(), loc="outside right upper" if wide else "outside lower center",
                      title=title, ncols=1 if wide else 3)  # fmt: skip
        return save(figure, folder, f"{KNOB_CURVES}{knob}", formats)


def _knob_curve(axes: Axes, curve: pd.DataFrame, metric: str, colour: str, label: str) -> None:
    x, y, default = curve["knob_value"], curve[metric] * scale(metric), curve["is_default"]
    front = colour != GREY
    axes.plot(x, y, color=colour, linewidth=1.4 if front else 0.8, zorder=3 if front else 2, label=label)
    axes.plot(x[default], y[default], "o", color=BLACK, markersize=3, zorder=4, label="as trained")


def draw_levels(
    tables: dict[str, pd.DataFrame],
    key: str,
    name: str,
    formats: Iterable[str],
    folder: Path,
    width: ColumnWidth = "double",
) -> list[Path]:
    """Draw mean and interval of metrics over the levels of a key; ``tables``: metric -> rows of ``level_means``."""
    with paper_style():
        wide = width == "double"
        figure = new_figure(WIDTHS[width], 2.9 if wide else 5.4)
        panels = figure.subplots(*((1, len(tables)) if wide else (len(tables), 1)), squeeze=False).flatten()
        groups = sorted({str(group) for means in tables.values() for group in means["group"].unique()})
        styles = looks(groups)
        for axes, (metric, means) in zip(panels, tables.items(), strict=True):
            for group in groups:
                rows, factor, style = means[means["group"] == group], scale(metric), styles[group]
                middle = rows["mean"] * factor
                bars = [middle - rows["low"] * factor, rows["high"] * factor - middle]
                axes.errorbar(
                    rows["level"],
                    middle,
                    yerr=bars if metric not in ("flops",) else None,
                    color=style.colour,
                    marker=style.marker,
                    capsize=2,
                    linewidth=1.2,
                    label=in_legend(group) if metric == next(iter(tables)) else None,
                )
            if metric == "flops" and means["mean"].min() > 0:
                log_ticks(axes, "y", float(means["mean"].max() / means["mean"].min()))
            axes.set_xticks(sorted(means["level"].unique()))
            axes.set_xlabel(as_text(key))
            axes.set_ylabel(axis_label(metric))
        figure.legend(loc="outside lower center", ncols=3 if wide else 2)
        return save(figure, folder, name, formats)


def draw_parallel(
    axes_of: list[ParallelAxis],
    on_front: list[bool],
    formats: Iterable[str],
    folder: Path,
    width: ColumnWidth = "double",
) -> list[Path]:
    """Draw a line per trial across the axes; trials on the front stand out. A missing value breaks a line."""
    if len(axes_of) < 3 or not on_front:
        return []
    with paper_style():
        figure = new_figure(max(WIDTHS[width], 1.15 * len(axes_of)), 3.4)
        axes = figure.add_subplot()
        for front, colour, label in ((False, GREY, "other trials"), (True, FRONT, "on the front")):
            rows = [row for row, flag in enumerate(on_front) if flag == front]
            segments = [
                [(i, axes_of[i].positions[row]), (i + 1, axes_of[i + 1].positions[row])]
                for row in rows
                for i in range(len(axes_of) - 1)
                if not math.isnan(axes_of[i].positions[row] + axes_of[i + 1].positions[row])
            ]
            line = LineCollection(
                segments, colors=colour, linewidths=1.4 if front else 0.6, alpha=0.9 if front else 0.5
            )
            line.set_label(label)
            axes.add_collection(line)
        for place, axis in enumerate(axes_of):
            _parallel_axis(axes, place, axis)
        axes.set_xlim(-0.1, len(axes_of) - 0.4)
        axes.set_ylim(-0.06, 1.06)
        names = [as_text(axis.label.replace(" (", "\n(")) for axis in axes_of]
        few = len(names) < 7
        axes.set_xticks(range(len(names)), names, rotation=0 if few else 25, ha="center" if few else "right")
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        figure.legend(loc="outside upper right", ncols=2)
        return save(figure, folder, "parallel", formats)


def _parallel_axis(axes: Axes, place: int, axis: ParallelAxis) -> None:
    axes.axvline(place, color=BLACK, linewidth=0.8)
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for position, text in axis.ticks:
        label = axes.annotate(as_text(text), (place, position), (3, 0), textcoords="offset points", bbox=box)
        label.set(fontsize=7, verticalalignment="center")


def draw_importance(
    found: pd.DataFrame, formats: Iterable[str], folder: Path, width: ColumnWidth = "double"
) -> list[Path]:
    """Draw the importance of parameters for every objective; the title notes its limits and left-out parameters."""
    if found.empty:
        return []
    metrics = [column for column in found.columns if column != "parameter"]
    found, left_out = split_estimated(found)
    if found.empty:
        return []
    with paper_style():
        figure = new_figure(WIDTHS[width], 1.3 + 0.24 * len(found) * len(metrics))
        axes = figure.add_subplot()
        high = 0.8 / len(metrics)
        for index, metric in enumerate(metrics):
            places = [row + (index - (len(metrics) - 1) / 2) * high for row in range(len(found))]
            axes.barh(places, found[metric] * 100, high * 0.9, color=COLOURS[index], label=f"for {axis_label(metric)}")
        axes.set_yticks(range(len(found)), [as_text(str(name)) for name in found["parameter"]])
        axes.invert_yaxis()
        axes.set_xlabel("share of the variation over this search's trials (%)")
        conditional = f"\nwithout the {len(left_out)} that only some trials have" if left_out else ""
        title(axes, f"Importance: an estimate, not an ablation{conditional}")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=1)
        return save(figure, folder, "importance", formats)
