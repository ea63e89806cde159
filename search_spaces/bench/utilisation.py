"""``routing bench sweep``: wall time of the same trials run by our sweep and by what a user might write instead.

Each way runs as a fresh process on the same machine, in rotating order. Wall time is taken twice: of the whole command,
and from the first trial's start to the last one's end (``after start``). Utilisation = seconds spent in training epochs
/ (wall time after start x workers); ``inside trials`` is the share of that time that trials took, their evaluation
included. The plain pool searches nothing: it is what two processes can do at best.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from routing.bench.start import finish, run_started
from routing.bench.tables import BenchTable
from routing.files.results_folder import LEDGER_FILE, STUDY_FILE, TRIALS_FILE, trial_folder
from routing.files.yaml_io import dump
from search_spaces.bench.workload import BASE, LONG, RANGE, SHORT, TARGET, WORKERS, Workload, config_of

COLUMNS = {
    "way": "way",
    "wall_seconds": "wall (s)",
    "after_start_seconds": "after start (s)",
    "utilisation": "utilisation",
    "inside_trials": "inside trials",
    "ours_is_faster": "ours is faster by",
    "ours_is_faster_after_start": "after start",
    "n": "rounds",
}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables of two-second trials, all ways, and of ten-second trials, ours and the plain pool."""
    rounds = 1 if quick else 3
    tables = []
    for workload, ways, few in ((SHORT, tuple(WAYS), 6), (LONG, (OURS, POOL), 4)):
        used = replace(workload, trials=few) if quick else workload
        title = f"{used.trials} {used.seconds}-second trials, {WORKERS} at a time"
        tables.append(BenchTable(title, COLUMNS, compare(used, ways, rounds)))
    return tables


def compare(workload: Workload, names: Sequence[str], rounds: int = 3) -> list[dict[str, Any]]:
    """Return one row per way, the first one ours: medians over ``rounds``; ``ours_is_faster`` is its time over ours."""
    config_of(RANGE[0], workload.epochs).dataset.load()  # drawn and cached before any time is measured
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for index in range(rounds):
        turn = index % len(names)
        for name in (*names[turn:], *names[:turn]):
            with tempfile.TemporaryDirectory() as folder:
                started = time.time()
                WAYS[name](Path(folder), workload)
                wall = time.time() - started
                found[name].append(figures(notes(Path(folder)), wall))
    ours = found[names[0]]
    return [
        {
            "way": name,
            **{key: statistics.median(row[key] for row in found[name]) for key in found[name][0]},
            "ours_is_faster": _faster(found[name], ours, "wall_seconds"),
            "ours_is_faster_after_start": _faster(found[name], ours, "after_start_seconds"),
            "n": rounds,
        }
        for name in names
    ]


def _faster(other: list[dict[str, float]], ours: list[dict[str, float]], key: str) -> float:
    return statistics.median(a[key] / b[key] for a, b in zip(other, ours, strict=True))


def figures(notes: list[dict[str, float]], wall: float) -> dict[str, float]:
    """Return wall time, wall time after start, utilisation, and the share of that time inside trials."""
    after_start = max(note["ended"] for note in notes) - min(note["started"] for note in notes)
    trained = sum(note["train_seconds"] for note in notes)
    lasted = sum(note["ended"] - note["started"] for note in notes)
    return {
        "wall_seconds": wall,
        "after_start_seconds": after_start,
        "utilisation": trained / (after_start * WORKERS),
        "inside_trials": lasted / (after_start * WORKERS),
    }


def notes(folder: Path) -> list[dict[str, float]]:
    """Return start, end and training seconds of every trial: as noted, or of a results folder."""
    noted = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    if noted:
        return noted
    import optuna
    import pandas as pd

    from search_spaces.ledger.ledger import open_storage

    results = folder / "results"
    study = optuna.load_study(study_name=None, storage=open_storage(str(results / LEDGER_FILE)))
    trained = pd.read_csv(results / TRIALS_FILE).set_index("number")["train_seconds"]
    return [
        {
            # the ledger's start is when the trial was asked for, before there was a process for it
            "started": run_started(trial_folder(results, trial.number)),
            "ended": trial.datetime_complete.timestamp(),
            "train_seconds": float(trained[trial.number]),
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_complete
    ]


def _environment() -> dict[str, str]:
    # by default Ray's workers give way to every other process, however little else a machine does
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}


def fresh_process(*words: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start Python in the environment that every way runs in, with one thread; it prints nowhere."""
    return subprocess.Popen(
        [sys.executable, *words],
        env={**_environment(), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def wait(*processes: subprocess.Popen[bytes]) -> None:
    """Wait for processes.

    Raises:
        RoutingError: one failed.
    """
    for process in processes:
        finish(process)


def _ours(folder: Path, workload: Workload) -> None:
    study = {
        "kind": "sweep",
        "name": "short_trials",
        "base": {**BASE, "training.num_epochs": workload.epochs},
        "space": {TARGET: {"float": list(RANGE), "log": True}},
        "objectives": [
            {"metric": "val_accuracy", "goal": "maximize", "reference": 0.0},
            {"metric": "flops", "goal": "minimize", "reference": 3.0e6},
        ],
        "sampler": {"name": "tpe", "seed": 0},
        "scheduler": {"name": "none"},
        "trials": workload.trials,
        "keep_models": "none",
    }
    (folder / STUDY_FILE).write_text(dump(study), encoding="utf-8")
    program = "import sys, search_spaces; search_spaces.sweep(sys.argv[1], sys.argv[2], concurrency=int(sys.argv[3]))"
    wait(fresh_process("-c", program, str(folder / STUDY_FILE), str(folder / "results"), str(WORKERS)))


def _plain_ray(folder: Path, workload: Workload) -> None:
    # a cluster of its own: Ray would otherwise join any cluster on this machine, and hang when that one ends
    wait(fresh_process("-m", "search_spaces.bench.plain_ray", str(folder), *workload.words(), RAY_ADDRESS="local"))


def _plain_optuna(folder: Path, workload: Workload) -> None:
    share = replace(workload, trials=workload.trials // WORKERS)
    words = ("-m", "search_spaces.bench.plain_optuna", str(folder), *share.words())
    wait(*(fresh_process(*words) for _ in range(WORKERS)))


def _plain_pool(folder: Path, workload: Workload) -> None:
    wait(fresh_process("-m", "search_spaces.bench.plain_pool", str(folder), *workload.words()))


OURS, POOL = "routing sweep", "plain pool of two processes, no search"
WAYS: dict[str, Callable[[Path, Workload], None]] = {
    OURS: _ours,
    "plain Ray Tune + OptunaSearch": _plain_ray,
    "plain Optuna, two processes": _plain_optuna,
    POOL: _plain_pool,
}
