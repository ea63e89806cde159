"""Learning curves of a real study, recorded once and replayed in seconds.

One row per epoch: ``trial``, ``epoch``, the objectives, ``expected_flops``, and a column per searched key (empty where
the trial does not have it). ``python -m search_spaces.bench.recorded RESULTS FILE`` makes one of a results folder.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from routing.errors import InputError
from routing.record import HISTORY_FILE
from search_spaces.collect import write_table
from search_spaces.ledger import EXPECTED_FLOPS, LEDGER_FILE, Ledger, setting_of
from search_spaces.load import load_study
from search_spaces.results import trial_folder
from search_spaces.schema import SweepStudy

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


def record(results: Path, path: Path) -> int:
    """Write the finished trials of a results folder (run with ``scheduler: none``) as a recording; return how many."""
    study = load_study(results)
    if not isinstance(study, SweepStudy) or study.scheduler.name != "none":
        raise InputError(f"{results}: a recording needs a sweep that stops no trial (scheduler none)")
    metrics = [objective.metric for objective in study.objectives]
    ledger = Ledger(str(results / LEDGER_FILE), study.name, study.objectives, must_exist=True)
    finished = ledger.trials((TrialState.COMPLETE,))
    rows = []
    for trial in finished:
        with (trial_folder(results, trial.number) / HISTORY_FILE).open(encoding="utf-8", newline="") as file:
            for epoch in csv.DictReader(file):
                row: dict[str, Any] = {"trial": trial.number, "epoch": int(epoch["epoch"])}
                row |= {metric: f"{float(epoch[metric]):.7g}" for metric in metrics}
                row[EXPECTED_FLOPS] = f"{trial.user_attrs[EXPECTED_FLOPS]:.7g}"
                setting = setting_of(trial)
                row |= {key: json.dumps(setting[key]) for key in study.space if key in setting}
                rows.append(row)
    write_table(path, rows, first=("trial", "epoch", *metrics, EXPECTED_FLOPS, *study.space))
    return len(finished)


if __name__ == "__main__":
    print(f"{record(Path(sys.argv[1]), Path(sys.argv[2]))} trials")
