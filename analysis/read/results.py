"""Read a results folder: finished, running, partly failed or damaged. What cannot be read is named, never fatal."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.read.constraints import allowed, problems_of
from analysis.read.objectives import measured, objectives_of
from routing.config.section import dotted
from routing.errors import InputError, choices
from routing.files.links import check_links
from routing.files.record import read_metrics
from routing.files.results_folder import (
    ARM,
    COMPLETE,
    COMPUTE_CHECK,
    CONFIG_FILE,
    ENVIRONMENT_FILE,
    EXECUTED_ALONE,
    FAIL,
    METRICS_FILE,
    OPERATING_POINT,
    POINTS_FILE,
    PRUNED,
    RUNNING,
    STUDY_FILE,
    TRIAL_COLUMNS,
    TRIALS_FILE,
    TRIALS_FOLDER,
    WARM_START,
    WARM_START_REASON,
    trial_folder,
)
from routing.files.yaml_io import as_cell, load_file
from routing.objectives import Objective
from routing.quantities import why_impossible

NUMBER_COLUMNS = ("routing_ratio", "flops", "params")
"""Columns of points with numbers only: one damaged cell would make pandas read all of a column as text."""
POINT_COLUMNS = ("trial", "seed", *OPERATING_POINT, *NUMBER_COLUMNS)
_EXACT: dict[str, Any] = (  # pandas reads floats to the last digit by itself from 3.1 on
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)
MAX_NUMBER = 2**53
"""A trial's number above this is damage: a float no longer tells it from the next."""
_NOTHING = ("", "nan", "NaN", "NA", "N/A", "null", "None")
"""Cells without a value. An arm may be called any of these but the first."""
_WITHOUT_POINTS = (FAIL, PRUNED)
TEXT_COLUMNS = ("state", "reason", ARM, "knob", "knob_value", "router_state")


@dataclass
class Results:
    """A results folder in memory.

    ``trials`` has a row per trial in every state, ``points`` a row per operating point with every objective measured;
    ``problems`` has one line for each missing or damaged file.
    """

    folder: Path
    study: dict[str, Any]
    environment: dict[str, Any]
    objectives: tuple[Objective, ...]
    trials: pd.DataFrame
    points: pd.DataFrame
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The study's name; the folder's where the study has none."""
        return str(self.study.get("name") or self.folder.resolve().name)

    @cached_property
    def allowed(self) -> pd.Series:
        """Which rows of ``points`` can be on a front: they keep to the study's constraints, and are no oracle's."""
        return allowed(self.points, self.study.get("constraints"))

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """The rows of ``points`` that are chosen among, ranked and compared; see ``allowed``."""
        return self.points[self.allowed]

    @property
    def kind(self) -> str:
        """``sweep`` or ``ablation``."""
        return str(self.study.get("kind", "sweep"))

    @property
    def warm_started(self) -> pd.Series:
        """Which rows of ``trials`` were taken over from another study."""
        marked = self.trials["reason"].astype(str).str.startswith(WARM_START_REASON)
        return (self.trials["state"] == WARM_START) | marked

    def trial_folder(self, number: int) -> Path:
        """Return where the files of a trial lie."""
        return trial_folder(self.folder, number)


def read_results(folder: str | Path) -> Results:
    """Read a results folder.

    Raises:
        InputError: no such folder, nothing of a results folder in it, or objectives that cannot be understood.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such results folder")
    if not any((root / name).exists() for name in (STUDY_FILE, TRIALS_FILE, TRIALS_FOLDER)):
        raise InputError(f"{root}: not a results folder: it has no {STUDY_FILE}, {TRIALS_FILE} or {TRIALS_FOLDER}/")
    check_links(root)
    problems: list[str] = []
    study = _read_study(root / STUDY_FILE, problems)
    objectives = objectives_of(study)
    trials = _numbered(_read_csv(root / TRIALS_FILE, "number", problems), "number", TRIALS_FILE, problems)
    points = _numbered(_read_csv(root / POINTS_FILE, "trial", problems), "trial", POINTS_FILE, problems)
    trials = _one_row_each(trials, problems)
    trials, points = _add_unlisted(root, trials, points, problems)
    trials, points = _with_columns(trials, TRIAL_COLUMNS), _with_columns(points, POINT_COLUMNS)
    points = _with_columns(points, [objective.metric for objective in objectives])
    problems += _damaged(root, trials)
    problems += _counted_alone(trials)
    complete = measured(points, objectives)
    for number in dict.fromkeys(points.loc[~complete, "trial"]):
        problems.append(f"trial {number}: a point without {' or '.join(o.metric for o in objectives)} is left out")
    points = points[complete]
    numeric = dict.fromkeys([*(objective.metric for objective in objectives), *NUMBER_COLUMNS])
    points = points.assign(**{name: pd.to_numeric(points[name], errors="coerce") for name in numeric})
    points = _possible(points, list(numeric), problems)
    environment = _read_json(root / ENVIRONMENT_FILE, problems)
    problems += problems_of(points, study.get("constraints"))
    return Results(root, study, environment, objectives, trials, points, problems)


def default_points(points: pd.DataFrame) -> pd.Series:
    """Return which points are their trial's own setting of the knob."""
    return points["is_default"].astype(str).str.lower().isin(("true", "1", "1.0"))


def _read_study(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        study = load_file(path)[0]
    except InputError as error:
        problems.append(f"{error}; objectives are taken to be val_accuracy and flops")
        return {}
    if isinstance(study, dict):
        return study
    problems.append(f"{path}: not a study: {type(study).__name__} instead of keys and values")
    return {}


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path}: not readable: {str(error).splitlines()[0]}")
        return {}
    return content if isinstance(content, dict) else {}


def _read_csv(path: Path, key: str, problems: list[str]) -> pd.DataFrame:
    """Return the table; rows with too many fields are skipped and counted, a file that is no such table is empty."""
    skipped: list[list[str]] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
        if key not in header:
            raise ValueError(f"no column '{key}'")
        texts = {column: str for column in TEXT_COLUMNS if column in header}
        nothing = {column: list(_NOTHING[:1] if column == ARM else _NOTHING) for column in header}
        how: dict[str, Any] = {"dtype": texts, "keep_default_na": False, "na_values": nothing}
        try:
            table = pd.read_csv(path, low_memory=False, **how, **_EXACT)
        except pd.errors.ParserError:
            table = pd.read_csv(path, engine="python", on_bad_lines=skipped.append, **how)
        if not isinstance(table.index, pd.RangeIndex):  # pandas turns rows longer than the header into an index
            raise ValueError("rows have more fields than the header")
    except (
        OSError,
        ValueError,
        csv.Error,
        AssertionError,
    ) as error:  # for such rows pandas fails an assertion on na_values
        why = next(iter(str(error).splitlines()), "rows have more fields than the header")
        problems.append(f"{path}: not readable: {why}; the trial folders are read instead")
        return pd.DataFrame({key: pd.Series(dtype=int)})
    if skipped:
        problems.append(f"{path}: {len(skipped)} damaged row(s) skipped")
    return table


def _possible(points: pd.DataFrame, columns: list[str], problems: list[str]) -> pd.DataFrame:
    """Return the points whose measurements can be; the others are named."""
    keep = pd.Series(True, index=points.index)
    for name in columns:
        values = points[name].dropna()
        if values.empty or not (why_impossible(name, values.min()) or why_impossible(name, values.max())):
            continue  # a range: when its ends can be, all between them can
        for index, trial, value in zip(values.index, points.loc[values.index, "trial"], values, strict=True):
            why = why_impossible(name, float(value))
            if why and keep[index]:
                keep[index] = False
                problems.append(f"trial {trial}: a point with {name} {value:g} is left out ({why})")
    return points[keep].reset_index(drop=True)


def _with_columns(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    missing = [column for column in columns if column not in table]
    return table.assign(**{column: pd.Series(None, index=table.index, dtype=object) for column in missing})


def _numbered(table: pd.DataFrame, column: str, where: str, problems: list[str]) -> pd.DataFrame:
    """Return the rows whose trial number is a number, as int; the others are counted."""
    numbers = pd.to_numeric(table[column], errors="coerce")
    numbers = numbers.where(numbers.between(0, MAX_NUMBER) & (numbers % 1 == 0))
    if numbers.isna().any():
        problems.append(f"{where}: {int(numbers.isna().sum())} row(s) without a trial number skipped")
    return table[numbers.notna()].assign(**{column: numbers[numbers.notna()].astype(int)})


def _one_row_each(trials: pd.DataFrame, problems: list[str]) -> pd.DataFrame:
    """Return the first row of every trial; further rows of one are damage, and counted."""
    again = trials["number"].duplicated()
    if again.any():
        problems.append(f"{TRIALS_FILE}: {int(again.sum())} further row(s) of a trial listed already skipped")
    return trials[~again]


def _trial_folders(root: Path) -> Iterator[Path]:
    folder = root / TRIALS_FOLDER
    if folder.is_dir():
        yield from sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def _add_unlisted(
    root: Path, trials: pd.DataFrame, points: pd.DataFrame, problems: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add finished trials that are not in the tables yet: a running sweep rewrites its tables only periodically."""
    listed, with_points = set(trials["number"]), set(points["trial"])
    without = set(trials.loc[trials["state"].isin(_WITHOUT_POINTS), "number"]) if "state" in trials else set()
    trial_rows: list[dict[str, Any]] = []
    point_rows: list[dict[str, Any]] = []
    for folder in _trial_folders(root):
        number = int(folder.name)
        has_all = number in without or number in with_points or not (folder / METRICS_FILE).exists()
        if number in listed and has_all:
            continue
        trial, own_points = _read_trial(folder, problems)
        trial_rows += [] if number in listed else [trial]
        point_rows += [] if number in with_points else own_points
    return _extended(trials, trial_rows, "number"), _extended(points, point_rows, "trial")


def _extended(table: pd.DataFrame, rows: list[dict[str, Any]], key: str) -> pd.DataFrame:
    """Return the table with rows added, ordered by trial number."""
    if rows:
        added = pd.DataFrame(rows)
        table = added if table.empty else pd.concat([table, added], ignore_index=True)
    return table.sort_values(key, kind="stable").reset_index(drop=True)


def _read_trial(folder: Path, problems: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the trial's row and its points' rows; unfinished or damaged trials have no points."""
    number = int(folder.name)
    keys: dict[str, Any] = {}
    try:
        loaded = load_file(folder / CONFIG_FILE)[0]
        keys = {key: as_cell(value) for key, value in dotted(loaded).items()} if isinstance(loaded, dict) else {}
    except InputError as error:
        problems.append(f"trial {number}: {error}")
    row: dict[str, Any] = {"number": number, "state": RUNNING, "reason": None, "seed": keys.get("seed"), **keys}
    if not (folder / METRICS_FILE).exists():
        return row, []
    try:
        content = read_metrics(folder)
    except InputError as error:
        return {**row, "state": FAIL, "reason": str(error)}, []
    points = [{"trial": number, **point, **keys} for point in content.get("points") or [] if isinstance(point, dict)]
    return {**row, "state": COMPLETE, **content["metrics"]}, points


def _counted_alone(trials: pd.DataFrame) -> list[str]:
    """Return a line on models whose multiply-adds no closed form has checked."""
    if COMPUTE_CHECK not in trials or "model.name" not in trials:
        return []
    names = trials.loc[trials[COMPUTE_CHECK] == EXECUTED_ALONE, "model.name"].unique()
    return [f"multiply-adds of {choices(names)}: {EXECUTED_ALONE}"] if len(names) else []


def _damaged(root: Path, trials: pd.DataFrame) -> list[str]:
    """Return a line for each complete trial whose folder has no readable metrics; warm-started ones have no folder."""
    lines = []
    for number in trials.loc[trials["state"] == COMPLETE, "number"]:
        folder = trial_folder(root, int(number))
        try:
            if folder.is_dir():
                read_metrics(folder)
        except InputError as error:
            lines.append(f"trial {number}: {error}")
    return lines
