"""What a person reads when an analysis has ended: the front, what was written, and last of all the headline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from routing.commands.console import point_columns, say, table
from routing.files.mirror import Mirror
from routing.files.results_folder import CONFIRM_FILE, CONFIRM_FOLDER, FIGURES_FOLDER, TABLES_FOLDER


def show_findings(found: Any, of_confirm: bool = False) -> None:
    """Print an ``Analysis`` and those of further folders; of ``confirm`` what fresh seeds say in place of the front."""
    for analysis in (found, *found.others):
        if of_confirm:
            rows = analysis.confirmed.to_dict("records")
            title = f"Front of {analysis.folder} under fresh seeds, on the test split"
            table(rows, {name: name for name in analysis.confirmed}, title=title)
            say(f"wrote {analysis.folder / CONFIRM_FOLDER / CONFIRM_FILE}")
            continue
        objectives = [objective.metric for objective in analysis.objectives]
        rows = analysis.front_rows()
        columns = point_columns(rows, objectives, analysis.keys)
        table(rows, columns, title=f"Front of {analysis.folder}", keep=objectives)
        if analysis.knee is not None:
            why = "" if analysis.hypervolume else " (no point is better than the study's reference)"
            at = analysis.knee_knob
            volume = f"{analysis.hypervolume:.4g} ({analysis.scale})"
            say(f"knee: trial {analysis.knee['trial']}{at}   hypervolume: {volume}{why}")
        for line in analysis.problems:
            say(f"note: {line}")
        for path in (*analysis.figures, *analysis.tables, analysis.report):
            say(f"wrote {path}")
    if found.comparison is not None:
        for line in found.comparison.verdicts:
            say(line)
        for path in (*found.comparison.figures, found.comparison.report):
            say(f"wrote {path}")


def copy_findings(results: Path, url: str) -> None:
    """Copy what an analysis has written to where the sweep is mirrored."""
    mirror = Mirror(url)
    mirror.push(results, deep=False)
    for folder in (FIGURES_FOLDER, TABLES_FOLDER):
        mirror.push(results / folder, folder)
    say(f"copied {results} to {mirror.url}")


def show_headline(found: Any) -> None:
    """Print the headline of every folder with its report."""
    for analysis in (found, *found.others):
        say(f"{analysis.verdict}; report: {analysis.report}")


def show_parts(parts: Iterable[Any]) -> None:
    """Print the parts of a story: a title, a table, lines."""
    for part in parts:
        if part.columns:
            table(part.rows, part.columns, title=part.title)
        elif part.title:
            say(part.title)
        for line in part.lines:
            say(line)


def say_drawn(draw: Callable[..., list[Path]], *args: Any) -> None:
    """Draw figures and name them; a machine that only trains has neither pandas nor matplotlib, and is told so."""
    try:
        paths = draw(*args)
    except ModuleNotFoundError as error:
        say(f"no figures: {error.name} is not installed")
        return
    for path in paths:
        say(f"wrote {path}")
