"""The figure of ``routing compare``: every model's metric over its compute, with its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.figures.drawing import log_ticks, new_figure, paper_style, save, title
from analysis.findings.series import looks
from analysis.words.words import axis_label, scale

if TYPE_CHECKING:
    from routing.commands.compare import ModelComparison


def draw_comparison(compared: ModelComparison, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Draw compare.png: a large mark for the mean of a model, small ones for its seeds."""
    styles = looks([row["name"] for row in compared.rows])
    factor = scale(compared.metric)
    with paper_style():
        figure = new_figure(6.6, 3.6)
        ax = figure.subplots()
        for depth, row in enumerate(compared.rows):
            marker, colour = styles[row["name"]].marker, styles[row["name"]].colour
            seeds = [run for run in compared.runs if run["name"] == row["name"]]
            if len(seeds) > 1:
                x, y = [run["flops"] for run in seeds], [factor * run[compared.metric] for run in seeds]
                ax.scatter(x, y, marker=marker, s=9, color=colour, alpha=0.5, linewidths=0)
            ax.errorbar(
                row["flops"],
                factor * row[compared.metric],
                yerr=factor * row[f"{compared.metric}_sd"] if row[f"{compared.metric}_sd"] else None,
                marker=marker,
                color=colour,
                markersize=7,
                alpha=0.9,
                zorder=10 - depth / len(compared.rows),  # the first model is drawn in front: the comparison is about it
                capsize=2.5,
                linestyle="none",
                label=_label(row),
            )
        costs = pd.Series([row["flops"] for row in compared.rows])
        log_ticks(ax, "x", float(costs.max() / costs.min()))
        ax.set_xlabel(f"{axis_label('flops')}, log scale")
        ax.set_ylabel(axis_label(compared.metric))
        title(ax, compared.title)
        repeated = len(compared.runs) > len(compared.rows)
        figure.legend(
            loc="outside right upper", title="mean over seeds; bar: ± 1 sd" if repeated else None, alignment="left"
        )
        return save(figure, folder, "compare", formats)


def _label(row: Mapping[str, Any]) -> str:
    ratio = row.get("routing_ratio")
    return row["name"] if ratio is None else f"{row['name']} ({ratio:.2f} routed)"
