"""``analyze``: a results folder in, front.csv, figures and report.html out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis import plots
from analysis.ablation import ablation_table, compare_arms
from analysis.boundaries import boundary_warnings
from analysis.certificates import certificate_table
from analysis.importance import importances
from analysis.objectives import Objective
from analysis.page import Findings, render
from analysis.summary import Summary, summarise
from analysis.table import FRONT_FILE, read_results
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
    write_text(report, render(summary, paths, find(summary)))
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


def find(summary: Summary) -> Findings:
    """Compute what the page shows beside front and hypervolume."""
    compared = compare_arms(summary.results)
    return Findings(
        certificates=certificate_table(summary),
        ablations=() if compared.empty else (ablation_table(compared, summary.results),),
        importance=importances(summary.results),
        warnings=tuple(boundary_warnings(summary)),
    )
