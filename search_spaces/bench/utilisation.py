"""Wall time of the same short trials: our sweep, plain Ray Tune + OptunaSearch, plain Optuna in two processes.

Each way runs as a fresh process on the same machine, in rotating order. Wall time is taken twice: of the whole command,
and from the first trial's start to the last one's end (``after start``). Utilisation = seconds spent training /
(wall time after start x workers).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from routing.bench.tables import BenchTable
from routing.yaml_io import dump
from search_spaces.bench.workload import BASE, RANGE, TARGET, TRIALS, WORKERS

COLUMNS = {
    "way": "way",
    "wall_seconds": "wall (s)",
    "after_start_seconds": "after start (s)",
    "utilisation": "utilisation",
    "ours_is_faster": "ours is faster by",
    "ours_is_faster_after_start": "after start",
    "n": "rounds",
}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the table of short trials."""
    rows = compare(1 if quick else 3, 8 if quick else TRIALS)
    return [BenchTable("wall time of the same two-second trials, two at a time", COLUMNS, rows)]


def compare(rounds: int = 3, trials: int = TRIALS) -> list[dict[str, Any]]:
    """Return one row per way: medians over ``rounds``; ``ours_is_faster`` is its wall time over ours."""
    ways: dict[str, Callable[[Path, int], None]] = {
        "routing sweep": _ours,
        "plain Ray Tune + OptunaSearch": _plain_ray,
        "plain Optuna, two processes": _plain_optuna,
    }
    names = list(ways)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            with tempfile.TemporaryDirectory() as folder:
                started = time.time()
                ways[name](Path(folder), trials)
                found[name].append(_figures(_notes(Path(folder)), time.time() - started))
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


def _figures(notes: list[dict[str, float]], wall: float) -> dict[str, float]:
    after_start = max(note["ended"] for note in notes) - min(note["started"] for note in notes)
    trained = sum(note["train_seconds"] for note in notes)
    return {
        "wall_seconds": wall,
        "after_start_seconds": after_start,
        "utilisation": trained / (after_start * WORKERS),
    }


def _notes(folder: Path) -> list[dict[str, float]]:
    """Return start, end and training seconds of every trial."""
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    if notes:
        return notes
    import optuna
    import pandas as pd

    from search_spaces.ledger import open_storage

    study = optuna.load_study(study_name=None, storage=open_storage(str(folder / "results" / "ledger.journal")))
    trained = pd.read_csv(folder / "results" / "trials.csv").set_index("number")["train_seconds"]
    return [
        {
            "started": trial.datetime_start.timestamp(),
            "ended": trial.datetime_complete.timestamp(),
            "train_seconds": float(trained[trial.number]),
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_start and trial.datetime_complete
    ]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _run(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *words], env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def _wait(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        _, complaint = process.communicate()
        if process.returncode:
            raise RuntimeError(complaint.decode(errors="replace")[-2000:])


def _ours(folder: Path, trials: int) -> None:
    study = {
        "kind": "sweep",
        "name": "short_trials",
        "base": BASE,
        "space": {TARGET: {"float": list(RANGE), "log": True}},
        "objectives": [
            {"metric": "val_accuracy", "goal": "maximize", "reference": 0.0},
            {"metric": "flops", "goal": "minimize", "reference": 3.0e6},
        ],
        "sampler": {"name": "tpe", "seed": 0},
        "scheduler": {"name": "none"},
        "trials": trials,
        "keep_models": "none",
    }
    (folder / "study.yaml").write_text(dump(study), encoding="utf-8")
    program = "import sys, search_spaces; search_spaces.sweep(sys.argv[1], sys.argv[2], concurrency=int(sys.argv[3]))"
    _wait(_run("-c", program, str(folder / "study.yaml"), str(folder / "results"), str(WORKERS)))


def _plain_ray(folder: Path, trials: int) -> None:
    _wait(_run("-m", "search_spaces.bench.plain_ray", str(folder), str(trials)))


def _plain_optuna(folder: Path, trials: int) -> None:
    share = [str(trials // WORKERS)] * WORKERS
    _wait(*(_run("-m", "search_spaces.bench.plain_optuna", str(folder), count) for count in share))
