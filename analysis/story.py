"""The story of a trial: what it was, how it differs from the study's base, how it went, and why it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.read.configs import naming_keys
from analysis.read.results import Results, read_results
from analysis.words.words import state_in_words
from routing.config.run import RunConfig
from routing.config.script import read_run
from routing.errors import InputError
from routing.files.record import read_history
from routing.files.results_folder import CONFIG_FILE, ERROR_FILE, LOG_FILE
from routing.quantities import heading, is_metric, ordered, split_of

TRIAL_COLUMNS = {
    "number": "trial",
    "state": "state",
    "arm": "arm",
    "model.name": "model",
    "model.router.mode": "router",
    "epochs": "epochs",
    "seconds": "s",
    "node": "node",
    "reason": "reason",
}
_LAST_LINES = 20
_MOST_EPOCHS = 12


@dataclass(frozen=True)
class Part:
    """A table or lines under a title."""

    title: str
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    lines: Sequence[str] = ()


def trial_table(folder: str | Path) -> Part:
    """Return a row per trial of a results folder, with the columns of ``TRIAL_COLUMNS`` it has and a script's keys.

    Raises:
        InputError: no results folder.
    """
    trials = read_results(folder).trials
    trials = trials.assign(state=trials["state"].map(state_in_words))
    own = {key: key for key in naming_keys(trials) if key not in TRIAL_COLUMNS}
    columns = {"number": TRIAL_COLUMNS["number"], "state": TRIAL_COLUMNS["state"], **own, **TRIAL_COLUMNS}
    columns = {key: head for key, head in columns.items() if key in trials}
    return Part("", columns, [_cells(row) for _, row in trials[list(columns)].iterrows()])


def story(folder: str | Path, number: int) -> list[Part]:
    """Return the story of one trial, part by part.

    Raises:
        InputError: no results folder, or no such trial.
    """
    results = read_results(folder)
    found = results.trials[results.trials["number"] == number]
    if found.empty:
        known = results.trials["number"]
        valid = f"0 to {known.max()}" if len(known) else "none: no trial has begun"
        raise InputError(f"{results.folder}: no trial {number} (valid: {valid})")
    row, own = _cells(found.iloc[0]), results.trial_folder(number)
    parts = [Part("", lines=_about(row, own)), _changes(results, own), _history(own)]
    parts += [_tail(own / name) for name in (LOG_FILE, ERROR_FILE)]
    return [part for part in parts if part.rows or part.lines]


def _about(row: Mapping[str, Any], own: Path) -> list[str]:
    lines = [
        f"trial {row['number']}: {state_in_words(row['state'])}" + (f", {row['reason']}" if row.get("reason") else "")
    ]
    took = [f"{row[key]:.0f} {words}" for key, words in (("seconds", "s"), ("cpu_seconds", "s of CPU")) if row.get(key)]
    took += [f"on node {row['node']}"] if row.get("node") else []
    lines += [", ".join(took)] if took else []
    metrics = [f"{heading(name)} {row[name]:.6g}" for name in ordered(row) if is_metric(name) and _is_number(row[name])]
    lines += ["  ".join(metrics)] if metrics else []
    return [*lines, f"files: {own}"]


def _changes(results: Results, own: Path) -> Part:
    """Return the keys whose value is not the base's; a key that the base's model lacks is compared with its default."""
    try:
        config = read_run(own / CONFIG_FILE).dotted()
    except InputError as error:
        return Part("", lines=[str(error)])
    base = _base(results, config)
    changed = [
        {"key": key, "base": base.get(key, ""), "trial": value}
        for key, value in config.items()
        if base.get(key, _MISSING) != value
    ]
    title = "Differences to the base of the study"
    if not changed:
        return Part(title, lines=["none: it is the base"])
    return Part(title, {"key": "key", "trial": "trial", "base": "base"}, changed)


_MISSING = object()


def _base(results: Results, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted base run of a study, and the defaults of this trial's model for keys it lacks."""
    model = str(config.get("model.name", ""))
    base: dict[str, Any] = {}
    for values in ({"model.name": model}, results.study.get("base") or {}):
        try:
            base |= RunConfig.from_dict(values).dotted()
        except InputError:  # a base alone need not be a run
            base |= {str(key): value for key, value in values.items()}
    return base


def _history(own: Path) -> Part:
    try:
        rows = read_history(own)
    except (OSError, InputError):
        rows = []
    columns = [name for name in ("epoch", "train_loss") if any(name in row for row in rows)]
    measured = ordered(name for row in rows for name in row)
    columns += [name for name in measured if split_of(name) == "val" or name in ("flops", "routing_ratio")]
    skipped = len(rows) - _MOST_EPOCHS
    title = "History" + (f", the last {_MOST_EPOCHS} of {len(rows)} epochs" if skipped > 0 else "")
    return Part(title, {name: heading(name) for name in dict.fromkeys(columns)}, rows[-_MOST_EPOCHS:])


def _tail(path: Path) -> Part:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Part("")
    more = f", the last {_LAST_LINES} of {len(lines)} lines" if len(lines) > _LAST_LINES else ""
    return Part(f"{path}{more}", lines=lines[-_LAST_LINES:])


def _cells(row: pd.Series) -> dict[str, Any]:
    """Return the cells of a row that hold something, whole numbers as such."""
    cells = {str(key): value for key, value in row.items() if not pd.isna(value) and value != ""}
    return {key: value.item() if hasattr(value, "item") else value for key, value in cells.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
