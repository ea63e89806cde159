"""Learning curves of a real study, recorded once and replayed in seconds.

One row per epoch: ``trial``, ``epoch``, the objectives, ``expected_flops``, and a column per searched key (empty where
the trial does not have it). ``python -m search_spaces.bench.recorded STUDY FILE RESULTS...`` makes one.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.results_folder import CONFIG_FILE, HISTORY_FILE, LEDGER_FILE, trial_folder
from search_spaces.ledger.ledger import EXPECTED_FLOPS, Ledger
from search_spaces.ledger.tables import write_table
from search_spaces.study.load import load_study
from search_spaces.study.schema import SweepStudy
from search_spaces.study.space import Space

DIGITS = Path(__file__).parent / "recorded" / "digits.csv"
_OWN = ("trial", "epoch", EXPECTED_FLOPS)


@dataclass(frozen=True)
class Recorded:
    """One trial: its setting as the ledger stores it, and a row per epoch with ``epoch`` and the objectives."""

    setting: dict[str, Any]
    expected_flops: float
    curve: list[dict[str, float]]


def read_recorded(path: Path, metrics: list[str]) -> list[Recorded]:
    """Return the trials of a recording, in the order they ran."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no recording; make one with python -m search_spaces.bench.recorded") from None
    trials: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        trials.setdefault(row["trial"], []).append(row)
    return [
        Recorded(
            setting={k: json.loads(v) for k, v in own[0].items() if v and k not in _OWN and k not in metrics},
            expected_flops=float(own[0][EXPECTED_FLOPS]),
            curve=[{key: float(row[key]) for key in ("epoch", *metrics)} for row in own],
        )
        for own in trials.values()
    ]


def record(folders: Sequence[Path], path: Path, study: SweepStudy) -> int:
    """Write the finished trials of results folders as one recording over the space of ``study``; return how many.

    Raises:
        InputError: a folder's study stops trials early, so that its curves are cut.
    """
    space = Space(study.space, study.base)
    metrics = [objective.metric for objective in study.objectives]
    rows: list[dict[str, Any]] = []
    count = 0
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
            expected = f"{trial.user_attrs[EXPECTED_FLOPS]:.7g}"
            with (files / HISTORY_FILE).open(encoding="utf-8", newline="") as file:
                for epoch in csv.DictReader(file):
                    shown = {metric: f"{float(epoch[metric]):.7g}" for metric in metrics}
                    row = {"trial": count, "epoch": int(epoch["epoch"]), **shown, EXPECTED_FLOPS: expected}
                    rows.append({**row, **own_keys})
            count += 1
    write_table(path, rows, first=("trial", "epoch", *metrics, EXPECTED_FLOPS, *study.space))
    return count


if __name__ == "__main__":
    shipped = load_study(sys.argv[1])
    assert isinstance(shipped, SweepStudy)
    print(f"{record([Path(folder) for folder in sys.argv[3:]], Path(sys.argv[2]), shipped)} trials")
