"""The tables of the report page, and the commands that repeat its study."""

from __future__ import annotations

import shlex
from typing import Any

import pandas as pd

from analysis.findings.importance import NOTE as IMPORTANCE_NOTE
from analysis.findings.importance import split_estimated
from analysis.findings.summary import Summary
from analysis.read.configs import knob_value, naming_keys
from analysis.read.results import Results
from analysis.words.tables import Column, Row, Table, table
from analysis.words.words import axis_label, shown, state_in_words
from routing.files.results_folder import ARM, ERROR_FILE, FAIL, PRUNED, STUDY_FILE
from routing.quantities import is_metric, ordered

TRIAL_LINK = "#trial-{}"
"""Address in the page that pins a trial."""


def front_table(summary: Summary) -> Table:
    """Return the front, one row per point, ordered by cost; the knee is marked."""
    objectives = [o.metric for o in summary.results.objectives]
    names = [ARM, *naming_keys(summary.results.trials), "knob", "knob_value"]
    wanted = ["trial", "seed", *names, *objectives]
    further = [name for name in ordered(map(str, summary.front.columns)) if is_metric(name)]
    columns = [c for c in dict.fromkeys([*wanted, *further]) if c in summary.front]
    columns = [c for c in columns if summary.front[c].notna().any()]
    rows = []
    for index, row in summary.front.iterrows():
        cells = [_cell(c, row[c]) for c in columns]
        rows.append(Row(tuple(cells), "knee" if index == summary.knee else ""))
    headings = [
        Column(axis_label(c) if "." not in c else c, c not in names, href=TRIAL_LINK if c == "trial" else "")
        for c in columns
    ]
    return table("The front, ordered by cost; the knee is shaded", headings, rows)


def _cell(column: str, value: Any) -> str:
    whole = pd.to_numeric(value, errors="coerce") if column in ("trial", "seed") else float("nan")
    return shown(column, knob_value(value)) if pd.isna(whole) else str(int(whole))


def failure_table(results: Results) -> Table:
    """Return the trials that were stopped or failed, each with its reason and the file that says more."""
    stopped = results.trials[results.trials["state"].isin([FAIL, PRUNED])]
    rows = []
    for _, row in stopped.iterrows():
        number, state, reason = int(row["number"]), state_in_words(row["state"]), shown("reason", row["reason"])
        error = results.trial_folder(number) / ERROR_FILE
        link = error.relative_to(results.folder).as_posix() if error.is_file() else ""
        rows.append([str(number), state, reason, link])
    linked = any(row[-1] for row in rows)
    headings = [Column("trial", True, href=TRIAL_LINK), Column("state"), Column("reason", wrap=True)]
    headings += [Column("traceback", href="{}")] if linked else []
    return table("Trials that did not finish", headings, [row if linked else row[:-1] for row in rows])


def importance_table(found: pd.DataFrame | None) -> Table | None:
    """Return the importances as a table with its warning, None without any."""
    if found is None or found.empty:
        return None
    metrics = [column for column in found.columns if column != "parameter"]
    estimated, left_out = split_estimated(found)
    rows = [[str(row["parameter"]), *(f"{row[metric]:.1%}" for metric in metrics)] for _, row in estimated.iterrows()]
    headings = [Column("parameter"), *(Column(f"for {axis_label(metric)}", True) for metric in metrics)]
    note = IMPORTANCE_NOTE + (
        f" Left out, since only some trials have them: {', '.join(left_out)}." if left_out else ""
    )
    return table("Share of the variation over the trials of this search", headings, rows, note)


def environment_table(results: Results) -> Table:
    """Return the environment the study ran in as a table."""
    rows = [[str(key), _plain(value)] for key, value in results.environment.items()]
    return table("Environment of the study", ["what", Column("value", wrap=True)], rows)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return shlex.join(str(item) for item in value)
    return "" if value is None else str(value)


def commands(results: Results) -> str:
    """Return the commands that repeat the study and export its best points."""
    ran = results.environment.get("command")
    first = shlex.join(str(word) for word in ran) if isinstance(ran, list) else str(ran or "routing sweep study.yaml")
    folder = shlex.quote(str(results.folder))
    again = results.folder.parent / f"{results.folder.resolve().name}_again"
    lines = [
        "# as it was run",
        first,
        "# the same study again, from the resolved study of this folder",
        f"routing sweep {shlex.quote(str(results.folder / STUDY_FILE))} --out {shlex.quote(str(again))}",
        "# train the front again under fresh seeds and read the test split once",
        f"routing confirm {folder}",
        "# config, weights and card of the knee",
        f"routing export {folder} --pick knee",
    ]
    return "\n".join(lines)
