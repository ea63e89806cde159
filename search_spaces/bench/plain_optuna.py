"""What a user would write with Optuna alone: one of the processes that share a journal. Usage: FOLDER TRIALS EPOCHS"""

from __future__ import annotations

import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search_spaces.bench.workload import RANGE, config_of, timed_run


def shared_study(folder: str) -> optuna.Study:
    """Return the study that the processes share: accuracy up, FLOPs down, default settings."""
    return optuna.create_study(
        study_name="plain",
        storage=JournalStorage(JournalFileBackend(f"{folder}/journal")),
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )


def main(folder: str, trials: int, epochs: int) -> None:
    """Run this process's share of the sweep."""

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        return timed_run(config_of(trial.suggest_float("target", *RANGE, log=True), epochs), Path(folder))

    shared_study(folder).optimize(objective, trials)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
