"""The page of several studies: their points in one chart, a verdict in words, what differs between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.page.chart_data import MAX_CHART_POINTS, chart_data, few_points, with_latency
from analysis.page.page import Picture, frame, script, templates
from analysis.page.trial_data import trials_of
from analysis.read.results import Results
from analysis.words.tables import Table
from routing.files.results_folder import REPORT_FILE, TRIALS_FOLDER


@dataclass(frozen=True)
class Compared:
    """What the page shows of studies: sentences, the table of hypervolumes, the differences, and what was wrong."""

    verdicts: Sequence[str]
    hypervolumes: Table
    differences: Table
    pictures: Sequence[Picture]
    problems: Sequence[str]


def comparison_page(results: Sequence[Results], compared: Compared, where: Path) -> str:
    """Return the page as one HTML text.

    Args:
        where: folder of the page; it links the reports and trials of the studies relative to it.
    """
    names = list(dict.fromkeys(one.name for one in results))
    data = comparison_data(results, where)
    context = {
        "names": names,
        "compared": compared,
        "reports": [(str(one.folder), _relative(one.folder / REPORT_FILE, where)) for one in results],
        "chart_label": f"Chart of the operating points of {', '.join(names)}, with a front for each study.",
        **frame(),
        **script("comparison.js", data),
    }
    return templates().get_template("comparison.html.j2").render(context)


def comparison_data(results: Sequence[Results], where: Path) -> dict[str, Any]:
    """Return the data of the chart: the points of all studies, one series per study, and their trials."""
    tables, most = [], MAX_CHART_POINTS // len(results)
    for one in results:
        always = one.points.index[:0]
        tables.append(with_latency(few_points(one.points, always, most), one.trials))
    points = pd.concat(tables, ignore_index=True)
    kept = [one.allowed[own.index] for one, own in zip(results, tables, strict=True)]
    folders = [place for place, own in enumerate(tables) for _ in range(len(own))]
    names = pd.Series([results[place].name for place in folders], index=points.index, dtype=object)
    homes = [_relative(one.folder / TRIALS_FOLDER, where) for one in results]
    numbers = [(place, number) for place, one in enumerate(results) for number in one.trials["number"]]
    row_of = {key: row for row, key in enumerate(numbers)}
    trial_of = [row_of.get(key, -1) for key in zip(folders, points["trial"], strict=True)]
    chart = chart_data(points, results[0].objectives, names, pd.concat(kept))
    return {
        **chart,
        "lines": "series",
        "trial_of": trial_of,
        "dropped": sum(len(one.points) for one in results) - len(points),
        "trials": trials_of(results, homes),
    }


def _relative(path: Path, where: Path) -> str:
    return Path(os.path.relpath(path.resolve(), where.resolve())).as_posix()
