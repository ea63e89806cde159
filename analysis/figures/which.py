"""Choice of figures for a study, by its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd

from analysis.figures import front, parameters, study
from analysis.figures.drawing import ColumnWidth
from analysis.findings.effects import GRID_KEY, finished, knob_curves, level_means, parallel_axes, slice_keys
from analysis.findings.summary import Summary
from analysis.read.configs import as_searched, searched_keys

MAX_LINES = 300

Line = TypeVar("Line")


def draw_all(
    summary: Summary,
    formats: Sequence[str],
    folder: Path,
    width: ColumnWidth = "double",
    *,
    compared: pd.DataFrame | None = None,
    confirmed: pd.DataFrame | None = None,
    attained: pd.DataFrame | None = None,
    importance: pd.DataFrame | None = None,
    quick: bool = False,
) -> list[Path]:
    """Draw every figure this study has something for; return the paths in reading order.

    Args:
        quick: leave those of single parameters out, which take most of the time.
    """
    task = summary.results.objectives[0]
    paths = front.draw_front(summary, formats, folder, width, confirmed, attained)
    paths += study.draw_hypervolume(summary, formats, folder, width)
    if compared is not None and not compared.empty:
        paths += study.draw_forest(compared, task, formats, folder, width)
    if quick:
        return paths
    paths += _parameter_figures(summary, formats, folder, width)
    on_front = set(summary.front["trial"])
    for knob, curves in knob_curves(summary).items():
        shown = _some(curves, [curve["trial"].iloc[0] in on_front for curve in curves])
        paths += parameters.draw_knob_curves(knob, shown, on_front, task, formats, folder, width)
    if importance is not None:
        paths += parameters.draw_importance(importance, formats, folder, width)
    return paths


def _parameter_figures(summary: Summary, formats: Sequence[str], folder: Path, width: ColumnWidth) -> list[Path]:
    """Draw slices, the grid-size curve and parallel coordinates of the finished trials."""
    objectives = summary.results.objectives
    on_front = set(summary.front["trial"])
    study = summary.results.study
    # router settings do not apply to models without a router; other keys act in every model, searched or not
    trials, searched = as_searched(finished(summary.results), study, "model.router."), searched_keys(study)
    if trials.empty:
        return []
    keys = slice_keys(trials, searched)
    paths = parameters.draw_slices(trials, keys, on_front, objectives[0], formats, folder, width)
    if GRID_KEY in trials and len(trials[GRID_KEY].dropna().unique()) > 1 and "flops" in trials:
        tables = {metric: level_means(trials, GRID_KEY, metric) for metric in (objectives[0].metric, "flops")}
        paths += parameters.draw_levels(tables, "patches per side", "grid_size", formats, folder, width)
    lines = trials.loc[_some(trials.index.tolist(), trials["number"].isin(on_front).tolist())]
    axes = parallel_axes(lines, [objective.metric for objective in objectives], searched)
    flags = lines["number"].isin(on_front).tolist()
    return paths + parameters.draw_parallel(axes, flags, formats, folder, width)


def _some(lines: list[Line], on_front: Sequence[bool]) -> list[Line]:
    """Return those on the front and evenly chosen others, as many as stay readable."""
    others = [line for line, flag in zip(lines, on_front, strict=True) if not flag]
    step = max(1, -(-len(others) // MAX_LINES))
    return others[::step] + [line for line, flag in zip(lines, on_front, strict=True) if flag]
