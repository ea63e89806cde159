"""``analyze``: a results folder in, front.csv, figures and report.html out."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from analysis import plots
from analysis.objectives import Objective
from analysis.summary import Summary, summarise
from analysis.table import FRONT_FILE, Results, read_results
from analysis.words import axis_label, shown
from routing.errors import InputError, choices, nearest
from routing.record import write_text

REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"


@dataclass(frozen=True)
class Analysis:
    """What ``analyze`` found and wrote for one results folder.

    ``front`` holds the front's rows of points.csv ordered by cost, ``knee`` one of them (None without a front);
    ``others`` are the analyses of the further folders of the same call.
    """

    folder: Path
    front: pd.DataFrame
    knee: pd.Series | None
    hypervolume: float
    objectives: tuple[Objective, ...]
    states: dict[str, int]
    problems: list[str]
    figures: list[Path]
    report: Path
    others: tuple[Analysis, ...] = ()


def analyze(results: Sequence[str | Path], *, formats: Sequence[str] = ("png",)) -> Analysis:
    """Write front.csv, figures/ and report.html into each results folder.

    Args:
        results: results folders; a sweep may still be running in them.
        formats: of the figures: png, svg, pdf.

    Raises:
        InputError: no folder given, not a results folder, an unknown format.
    """
    for kind in formats:
        if kind not in plots.FORMATS:
            raise InputError(
                f"unknown figure format '{kind}'{nearest(kind, plots.FORMATS)} (valid: {choices(plots.FORMATS)})"
            )
    if not results:
        raise InputError("analyze needs at least one results folder")
    summaries = [summarise(read_results(folder)) for folder in results]
    first, *others = [_write(summary, formats) for summary in summaries]
    return replace(first, others=tuple(others))


def _write(summary: Summary, formats: Sequence[str]) -> Analysis:
    folder = summary.results.folder
    figures = folder / FIGURES_FOLDER
    write_text(folder / FRONT_FILE, summary.front.to_csv(index=False, lineterminator="\n"))
    paths = plots.draw_front(summary, formats, figures) + plots.draw_hypervolume(summary, formats, figures)
    report = folder / REPORT_FILE
    write_text(report, render(summary, paths))
    return Analysis(
        folder=folder,
        front=summary.front,
        knee=summary.knee_row,
        hypervolume=summary.hypervolume,
        objectives=summary.results.objectives,
        states=summary.states,
        problems=summary.results.problems,
        figures=paths,
        report=report,
    )


def templates() -> jinja2.Environment:
    """Return the package's templates; everything put into them is escaped, and a missing name is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("analysis", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(summary: Summary, figures: Sequence[Path]) -> str:
    """Return the report page as one self-contained HTML text."""
    results = summary.results
    pictures = [(path.stem, _data_uri(path)) for path in figures if path.suffix == ".png"]
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            name=results.name,
            question=results.study.get("question") or "",
            headline=headline(summary),
            states=summary.states,
            front=_front_table(summary),
            pictures=pictures,
            failures=_failures(results),
            problems=results.problems,
            environment=results.environment,
            hypervolume=summary.hypervolume,
            written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def headline(summary: Summary) -> list[str]:
    """Return the findings in a few sentences."""
    best, knee = summary.best_row, summary.knee_row
    if best is None or knee is None:
        return ["No trial has finished with every objective measured: there is no front yet."]
    objectives = summary.results.objectives
    lines = [f"Best {axis_label(objectives[0].metric)}: {_point_words(best, objectives)}."]
    lines.append(f"Knee of the front: {_point_words(knee, objectives)}.")
    full = summary.baselines[summary.baselines.get("model.name") == "full_compute"] if len(summary.baselines) else None
    if full is not None and len(full) and "flops" in full and full.iloc[0]["flops"] > 0:
        share = knee["flops"] / full.iloc[0]["flops"]
        lines.append(f"The knee costs {share:.1%} of full_compute ({_point_words(full.iloc[0], objectives)}).")
    return lines


def _point_words(row: pd.Series, objectives: Sequence[Objective]) -> str:
    what = ", ".join(f"{shown(o.metric, row[o.metric])} {axis_label(o.metric).split(' (')[0]}" for o in objectives)
    model = f", {row['model.name']}" if isinstance(row.get("model.name"), str) else ""
    return f"{what} (trial {int(row['trial'])}{model})"


def _front_table(summary: Summary) -> dict[str, Any]:
    objectives = [o.metric for o in summary.results.objectives]
    wanted = ["trial", "model.name", "model.router.mode", "knob", "knob_value", *objectives, "routing_ratio", "params"]
    columns = [column for column in dict.fromkeys(wanted) if column in summary.front]
    rows = []
    for index, row in summary.front.iterrows():
        cells = [str(int(row[c])) if c == "trial" else shown(c, row[c]) for c in columns]
        rows.append({"knee": index == summary.knee, "cells": cells})
    return {"columns": [axis_label(column) for column in columns], "rows": rows}


def _failures(results: Results) -> list[tuple[int, str, str]]:
    unfinished = results.trials[results.trials["state"].isin(["FAIL", "PRUNED"])]
    return [(int(row["number"]), str(row["state"]), shown("reason", row["reason"])) for _, row in unfinished.iterrows()]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
