"""``analyze``: a results folder in, front.csv, figures and report.html out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.comparison import StudyComparison, compare
from analysis.figures.drawing import FORMATS, WIDTHS, ColumnWidth, for_paper
from analysis.figures.which import draw_all
from analysis.findings.ablation import ablation_table, answers, compare_arms
from analysis.findings.attainment import attainment
from analysis.findings.boundaries import boundary_warnings
from analysis.findings.certificates import certificate_table
from analysis.findings.confirmed import confirm_table, confirmed_rows, error_bars, read_confirmed
from analysis.findings.importance import importances
from analysis.findings.summary import Summary, summarise
from analysis.page.front_tex import front_tex
from analysis.page.headline import progress, verdict
from analysis.page.page import Findings, pictured_trials, render
from analysis.read.configs import knob_value, naming_keys
from analysis.read.results import read_results
from analysis.words.tables import Table, to_latex, to_markdown
from analysis.words.words import at_knob
from routing.errors import InputError, choices, nearest
from routing.files.atomic import write_text
from routing.files.results_folder import (
    FIGURES_FOLDER,
    FRONT_FILE,
    MODEL_FILE,
    PAPER_FOLDER,
    REPORT_FILE,
    TABLES_FOLDER,
)
from routing.objectives import Objective

_DRAWN_MODELS = 2


@dataclass(frozen=True)
class Analysis:
    """What ``analyze`` found and wrote for one results folder.

    ``front`` holds the front's rows of points.csv ordered by cost, ``knee`` one of them (None without a front);
    ``keys`` are those that tell what ran; ``others`` are the analyses of the further folders of the same call,
    ``comparison`` what puts them side by side.
    """

    folder: Path
    front: pd.DataFrame
    knee: pd.Series | None
    knee_knob: str
    keys: list[str]
    hypervolume: float
    scale: str
    objectives: tuple[Objective, ...]
    states: dict[str, int]
    problems: list[str]
    figures: list[Path]
    report: Path
    tables: list[Path]
    confirmed: pd.DataFrame
    verdict: str
    progress: str
    others: tuple[Analysis, ...] = ()
    comparison: StudyComparison | None = None

    def front_rows(self) -> list[dict[str, Any]]:
        """Return the front for a table on a terminal, knob values in short."""
        front = self.front.astype(object).where(self.front.notna(), None)
        if "knob_value" in front:
            front["knob_value"] = front["knob_value"].map(knob_value)
        return [{str(key): value for key, value in row.items()} for row in front.to_dict("records")]


def analyze(
    results: str | Path | Sequence[str | Path],
    *,
    formats: Sequence[str] = ("png",),
    width: ColumnWidth = "double",
    draw_model: Callable[[Path], None] | None = None,
    refresh: int = 0,
    out: Path | None = None,
) -> Analysis:
    """Write front.csv, figures/ and report.html into each results folder.

    Args:
        results: a results folder or several; a sweep may still be running in them. One that is named twice counts once.
        formats: of the figures: png, svg, pdf; PNG is always drawn too, for the page.
        width: ``single`` draws them once more into ``paper/``, as wide as one column, without titles and raw keys;
            ``double`` as wide as the page.
        draw_model: draws a trained model into the ``figures`` of its trial's folder; called for the knee and for the
            best point of a front where there are weights and no pictures yet.
        refresh: of a study that is running: seconds after which the page loads itself again; only figures that take
            little time are drawn. 0: the page stays as it is, with every figure.
        out: where the comparison of several folders goes; default: ``comparison/`` of the first.

    Raises:
        InputError: no folder given, not a results folder, an unknown format or width.
    """
    for kind in formats:
        _check("figure format", kind, FORMATS)
    _check("figure width", width, WIDTHS)
    results = [results] if isinstance(results, (str, Path)) else results
    if not results:
        raise InputError("analyze needs at least one results folder")
    distinct = {Path(folder).resolve(): folder for folder in results}
    summaries = [summarise(read_results(folder)) for folder in distinct.values()]
    if draw_model is not None:
        for summary in summaries:
            _draw_models(summary, draw_model)
    first, *others = [_write(summary, formats, width, refresh) for summary in summaries]
    if not others:
        return first
    together = compare([summary.results for summary in summaries], _with_png(formats), width, out)
    return replace(first, others=tuple(others), comparison=together)


def _draw_models(summary: Summary, draw_model: Callable[[Path], None]) -> None:
    for folder in pictured_trials(summary)[:_DRAWN_MODELS]:
        if (folder / MODEL_FILE).is_file() and not (folder / FIGURES_FOLDER).exists():
            draw_model(folder)


def _check(what: str, word: str, valid: Iterable[str]) -> None:
    if word not in valid:
        raise InputError(f"unknown {what} '{word}'{nearest(word, valid)} (valid: {choices(valid)})")


def _with_png(formats: Sequence[str]) -> list[str]:
    """Return the requested formats plus PNG, which the pages always need."""
    return list(dict.fromkeys([*formats, "png"]))


def _write(summary: Summary, formats: Sequence[str], width: ColumnWidth, refresh: int) -> Analysis:
    results, folder = summary.results, summary.results.folder
    write_text(folder / FRONT_FILE, summary.front.to_csv(index=False, lineterminator="\n"))
    compared, confirmed, importance = compare_arms(results), read_confirmed(results), importances(results)
    findings = Findings(
        certificates=certificate_table(summary),
        ablations=() if compared.empty else (ablation_table(compared, results),),
        confirmed=confirmed,
        confirm=confirm_table(confirmed, results),
        importance=importance,
        warnings=tuple(boundary_warnings(summary)),
        answers=tuple(answers(compared, results.objectives)),
    )
    drawn: dict[str, Any] = {
        "compared": compared,
        "confirmed": error_bars(confirmed, results),
        "attained": attainment(results),
        "importance": importance,
        "quick": refresh > 0,
    }
    shown_formats = _with_png(formats) if width == "double" else ["png"]
    paths = draw_all(summary, shown_formats, folder / FIGURES_FOLDER, **drawn)
    if width == "single":  # of a paper: the pictures of the report stay as they are
        with for_paper():
            in_paper = draw_all(summary, formats, folder / PAPER_FOLDER, width, **drawn)
    else:
        in_paper = []
    tables = _write_tables(folder / TABLES_FOLDER, findings, compared, front_tex(summary, confirmed))
    report = folder / REPORT_FILE
    write_text(report, render(summary, paths, findings, refresh))
    return Analysis(
        folder=folder,
        front=summary.front,
        knee=summary.knee_row,
        knee_knob="" if summary.knee_row is None else at_knob(summary.knee_row.to_dict()),
        keys=naming_keys(results.trials),
        hypervolume=summary.hypervolume,
        scale=summary.scale,
        objectives=results.objectives,
        states=summary.states,
        problems=results.problems,
        figures=[*paths, *in_paper],
        report=report,
        tables=tables,
        confirmed=confirmed_rows(confirmed, results),
        verdict=verdict(summary, confirmed),
        progress=progress(summary),
    )


def _write_tables(folder: Path, findings: Findings, compared: pd.DataFrame, front: Table | None) -> list[Path]:
    """Write and return ablation and confirm tables as Markdown and LaTeX, the front as LaTeX, an ablation as CSV."""
    named = [("ablation", content) for content in findings.ablations]
    named += [("confirm", findings.confirm)] if findings.confirm is not None else []
    texts = {f"{name}.md": to_markdown(content) for name, content in named}
    texts |= {f"{name}.tex": to_latex(content) for name, content in named}
    texts |= {"front.tex": to_latex(front)} if front is not None else {}
    if not compared.empty:
        texts["ablation.csv"] = compared.to_csv(index=False, lineterminator="\n")
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
