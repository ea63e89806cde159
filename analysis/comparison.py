"""Several studies side by side: fronts over each other, attainment over repeats, one hypervolume table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figures.drawing import ColumnWidth
from analysis.figures.overlay import Surface, draw_overlay
from analysis.findings.differences import differences
from analysis.findings.indicators import Group, attainment, compare_groups, group_studies, joint_reference, same_seeds
from analysis.findings.versus import verdicts
from analysis.page.comparison_page import Compared, comparison_page
from analysis.page.page import figure_picture
from analysis.read.constraints import why_none
from analysis.read.objectives import metrics
from analysis.read.results import Results
from analysis.words.tables import Column, Table, table, to_latex, to_markdown
from analysis.words.words import axis_label, shown
from routing.files.atomic import write_text
from routing.files.results_folder import REPORT_FILE
from routing.objectives import Objective, scales_in_words

COMPARISON_FOLDER = "comparison"


@dataclass(frozen=True)
class StudyComparison:
    """What a comparison found and wrote: a row per study, the verdict in sentences, and the paths."""

    studies: pd.DataFrame
    verdicts: list[str]
    figures: list[Path]
    report: Path


def compare(
    results: Sequence[Results], formats: Sequence[str], width: ColumnWidth, out: Path | None = None
) -> StudyComparison:
    """Compare studies; folders of one study name are repeats of it.

    Args:
        out: where it is written; default: ``comparison/`` of the first folder.

    Raises:
        InputError: the studies have different objectives.
    """
    groups = [group for group in group_studies(results) if len(group.joint)]
    objectives = results[0].objectives
    folder = results[0].folder / COMPARISON_FOLDER if out is None else out
    reference = joint_reference(results)
    studies = compare_groups(groups, reference) if groups else pd.DataFrame()
    surfaces = [_surface(group, objectives) for group in groups] if len(objectives) == 2 else []
    figures = draw_overlay(surfaces, objectives, formats, folder, width)
    shown_table = comparison_table(studies, objectives, metrics(reference, objectives))
    write_text(folder / "hypervolume.csv", studies.to_csv(index=False))
    write_text(folder / "hypervolume.md", to_markdown(shown_table))
    write_text(folder / "hypervolume.tex", to_latex(shown_table))
    report = folder / REPORT_FILE
    pictures = [figure_picture(path) for path in figures if path.suffix == ".png"]
    problems = [line for one in results if (line := _without_front(one))] + same_seeds(results)
    said = verdicts(groups, objectives, reference)
    differ = differences(*_told_apart(results))
    write_text(folder / "differences.md", to_markdown(differ))
    compared = Compared(said, shown_table, differ, pictures, problems)
    write_text(report, comparison_page(results, compared, folder))
    return StudyComparison(studies, said, figures, report)


def _without_front(one: Results) -> str:
    if one.candidates.empty:
        why = "no operating point yet" if one.points.empty else why_none(one.points)
        return f"{one.folder}: {why}"
    return ""


def _told_apart(results: Sequence[Results]) -> tuple[list[Results], list[str]]:
    """Return one folder of every study with its name: repeats of a study differ in their seeds."""
    first = {one.name: one for one in reversed(results)}
    names = list(dict.fromkeys(one.name for one in results))
    return [first[name] for name in names], names


def _surface(group: Group, objectives: tuple[Objective, ...]) -> Surface:
    """Return the front that most repeats of a group reach, with a band from the best to the worst of them."""

    def values(share: float) -> pd.DataFrame:
        surface = attainment(group.fronts, share)
        shown_values = metrics(surface, objectives) if len(surface) else np.empty((0, 2))
        return pd.DataFrame(shown_values, columns=[o.metric for o in objectives])

    repeats = len(group.fronts)
    if repeats <= 1:
        return Surface(group.name, repeats, values(1.0), None, None)
    return Surface(group.name, repeats, values((repeats // 2 + 1) / repeats), values(1 / repeats), values(1.0))


def comparison_table(studies: pd.DataFrame, objectives: Sequence[Objective], reference: NDArray[np.float64]) -> Table:
    """Return the comparison as text."""
    rows = [
        [
            str(row["study"]),
            str(int(row["n"])),
            f"{row['hypervolume_mean']:.5g}",
            ""
            if math.isnan(row["hypervolume_low"])
            else f"[{row['hypervolume_low']:.5g}, {row['hypervolume_high']:.5g}]",
            f"{row['epsilon']:.4f}",
        ]
        for _, row in studies.iterrows()
    ]
    corner = ", ".join(
        f"{axis_label(o.metric).split(' (')[0]} {shown(o.metric, value)}"
        for o, value in zip(objectives, reference, strict=True)
    )
    headings = [Column("study"), Column("n", True), Column("hypervolume", True), Column("95 %", True)]
    note = (
        f"Hypervolume ({scales_in_words(objectives)}) against one reference point for all: {corner}. n: repeats, "
        "folders of the same study name; the interval is Student's t over them. Epsilon: how far the study's front "
        "must be moved, as a share of the joint front's range, to cover the joint front of all; 0 misses nothing."
    )
    return table("Studies compared", [*headings, Column("epsilon", True)], rows, note)
