"""Figures of a study as a whole: hypervolume, ablation; drawing only, all values are computed elsewhere."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis.figures.drawing import FRONT, WIDTHS, ColumnWidth, as_text, new_figure, paper_style, save
from analysis.findings.series import BLACK
from analysis.findings.summary import Summary
from analysis.words.words import arm_in_words, axis_label, scale
from routing.files.results_folder import ARM
from routing.objectives import Objective, scales_in_words


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
        names = [as_text(f"{arm_in_words(arm)} (n={n})") for arm, n in zip(rows[ARM], rows["pairs"], strict=True)]
        axes.set_yticks(range(len(rows)), names[::-1])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        unit = "percentage points" if factor == 100 else axis_label(metric)
        difference = f"arm minus {arm_in_words(baseline)} ({unit})"
        if width == "double":
            difference = f"{axis_label(metric).split(' (')[0]}: {difference}, paired by seed, 95 % interval"
        axes.set_xlabel(as_text(textwrap.fill(difference, 90 if width == "double" else 45)))
        axes.grid(axis="y", visible=False)
        return save(figure, folder, "forest", formats)
