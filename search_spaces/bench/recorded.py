"""Learning curves of a real study, recorded once and replayed in seconds.

One row per epoch: ``trial``, ``epoch``, the objectives, ``expected_flops``, and a column per searched key (empty where
the trial does not have it). ``python -m search_spaces.bench.recorded STUDY FILE RESULTS...`` makes one; with
``--points`` a row per operating point in place of one per epoch.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.record import read_metrics
from routing.files.results_folder import CONFIG_FILE, HISTORY_FILE, LEDGER_FILE, OPERATING_POINT, trial_folder
from search_spaces.ledger.ledger import EXPECTED_FLOPS, Ledger
from search_spaces.ledger.tables import write_table
from search_spaces.study.load import load_study
from search_spaces.study.schema import SweepStudy
from search_spaces.study.space import Space

RECORDED = Path(__file__).parent / "recorded"
DIGITS = RECORDED / "digits.csv"
CPU_SECONDS = "cpu_seconds"
_OWN = ("trial", "epoch", CPU_SECONDS, EXPECTED_FLOPS, *OPERATING_POINT)


@dataclass(frozen=True)
class Recorded:
    """One trial: its setting as the ledger stores it, and a row per epoch with ``epoch`` and the objectives."""

    setting: dict[str, Any]
    expected_flops: float
    curve: list[dict[str, float]]


@dataclass(frozen=True)
class RecordedPoints:
    """One trial: its setting as the ledger stores it, values of its default and of every operating point."""

    setting: dict[str, Any]
    default: list[float]
    points: list[list[float]]


def read_recorded(path: Path, metrics: list[str]) -> list[Recorded]:
    """Return the trials of a recording, in the order they ran."""
    return [
        Recorded(
            setting=_setting(own[0], metrics),
            expected_flops=float(own[0][EXPECTED_FLOPS]),
            curve=[{key: float(row[key]) for key in ("epoch", *metrics)} for row in own],
        )
        for own in _trials(path)
    ]


def read_points(path: Path, metrics: list[str]) -> list[RecordedPoints]:
    """Return the trials of a recording with points, in the order they ran."""
    return [
        RecordedPoints(
            setting=_setting(own[0], metrics),
            default=next(_values(row, metrics) for row in own if row["is_default"] == "True"),
            points=[_values(row, metrics) for row in own],
        )
        for own in _trials(path)
    ]


def _trials(path: Path) -> list[list[dict[str, str]]]:
    """Return the rows of every trial."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no recording; make one with python -m search_spaces.bench.recorded") from None
    trials: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        trials.setdefault(row["trial"], []).append(row)
    return [*trials.values()]


def _setting(row: dict[str, str], metrics: list[str]) -> dict[str, Any]:
    return {key: json.loads(text) for key, text in row.items() if text and key not in _OWN and key not in metrics}


def _values(row: dict[str, str], metrics: list[str]) -> list[float]:
    return [float(row[metric]) for metric in metrics]


def record(folders: Sequence[Path], path: Path, study: SweepStudy) -> int:
    """Write the epochs of the finished trials of results folders, over the space of ``study``; return how many trials.

    Raises:
        InputError: a folder's study stops trials early, so that its curves are cut.
    """
    metrics = [objective.metric for objective in study.objectives]
    rows: list[dict[str, Any]] = []
    found = list(_finished(folders, study))
    for count, (files, _, shared) in enumerate(found):
        with (files / HISTORY_FILE).open(encoding="utf-8", newline="") as file:
            for epoch in csv.DictReader(file):
                shown = {metric: f"{float(epoch[metric]):.7g}" for metric in metrics}
                rows.append({"trial": count, "epoch": int(epoch["epoch"]), **shown, **shared})
    write_table(path, rows, first=("trial", "epoch", *metrics, EXPECTED_FLOPS, *study.space))
    return len(found)


def record_points(folders: Sequence[Path], path: Path, study: SweepStudy) -> int:
    """Write every operating point of the finished trials, with their CPU seconds; else as ``record``."""
    metrics = [objective.metric for objective in study.objectives]
    rows: list[dict[str, Any]] = []
    found = list(_finished(folders, study))
    for count, (files, trial, shared) in enumerate(found):
        content = read_metrics(files)
        seconds = f"{trial.user_attrs[CPU_SECONDS]:.4g}"
        for point in content["points"]:
            shown = {metric: f"{float(point[metric]):.7g}" for metric in metrics}
            knob = {column: point[column] for column in OPERATING_POINT}
            if isinstance(point["knob_value"], float):
                knob["knob_value"] = f"{point['knob_value']:.7g}"
            rows.append({"trial": count, **knob, **shown, CPU_SECONDS: seconds, **shared})
    write_table(path, rows, first=("trial", *OPERATING_POINT, *metrics, CPU_SECONDS, EXPECTED_FLOPS, *study.space))
    return len(found)


def _finished(folders: Sequence[Path], study: SweepStudy) -> Iterator[tuple[Path, FrozenTrial, dict[str, Any]]]:
    """Yield every finished trial with its folder, and its expected FLOPs and searched keys."""
    space = Space(study.space, study.base)
    for folder in folders:
        own = load_study(folder)
        if own.scheduler.name != "none":
            raise InputError(f"{folder}: a recording needs a sweep that stops no trial (scheduler none)")
        ledger = Ledger(str(folder / LEDGER_FILE), own.name, own.objectives, must_exist=True)
        for trial in ledger.trials((TrialState.COMPLETE,)):
            files = trial_folder(folder, trial.number)
            run = RunConfig.from_yaml(files / CONFIG_FILE).dotted()
            setting = space.decide(lambda name, _, run=run: run[name])  # type: ignore[misc]
            own_keys = {key: json.dumps(value) for key, value in space.labels(setting).items()}
            yield files, trial, {EXPECTED_FLOPS: f"{trial.user_attrs[EXPECTED_FLOPS]:.7g}", **own_keys}


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--points"]
    shipped = load_study(words[0])
    assert isinstance(shipped, SweepStudy)
    write = record_points if "--points" in sys.argv else record
    print(f"{write([Path(folder) for folder in words[2:]], Path(words[1]), shipped)} trials")
