"""``routing bench start``: seconds from a command to its first useful output, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from routing.bench.tables import BenchTable
from routing.bench.timing import band
from routing.errors import RoutingError
from routing.files.atomic import write_text
from routing.files.record import read_metrics
from routing.files.results_folder import METRICS_FILE, STUDY_FILE
from routing.files.yaml_io import dump

STUDY: dict[str, Any] = {
    "kind": "sweep",
    "name": "trivial",
    "base": {"dataset": {"num_train": 256, "num_val": 96, "num_test": 64}, "training": {"num_epochs": 1}},
    "space": {"model.router.budget.target": {"float": [0.2, 0.6]}},
    "objectives": [
        {"metric": "val_accuracy", "goal": "maximize", "reference": 0.0},
        {"metric": "flops", "goal": "minimize", "reference": 3.0e6},
    ],
    "trials": 1,
}
COLUMNS = {"what": "what", "seconds": "seconds", "p10": "p10", "p90": "p90", "n": "runs"}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the table of waiting times."""
    help_seconds = [_seconds("--help") for _ in range(5 if quick else 15)]
    sweeps = [sweep() for _ in range(1 if quick else 5)]
    found = {"routing --help": help_seconds} | {what: [one[what] for one in sweeps] for what in sweeps[0]}
    rows = [{"what": what, **band(seconds).row("seconds")} for what, seconds in found.items()]
    return [BenchTable("seconds after the command", COLUMNS, rows)]


def _seconds(*words: str) -> float:
    started = time.perf_counter()
    finish(_command(*words))
    return time.perf_counter() - started


def sweep() -> dict[str, float]:
    """Return when the first trial of a local sweep starts, and when the sweep of one trivial trial is analyzed."""
    with tempfile.TemporaryDirectory() as folder:
        study, results = Path(folder) / STUDY_FILE, Path(folder) / "results"
        write_text(study, dump(STUDY))
        started = time.time()
        finish(_command("sweep", str(study), "--out", str(results), "--trials", "1"))
        ended = time.time()
        return {
            "first trial of a local sweep starts": run_started(results / "trials" / "0") - started,
            "sweep of one trivial trial, analysis included": ended - started,
        }


def run_started(folder: Path) -> float:
    """Return when the finished run in ``folder`` began (epoch seconds): how long it took, before its last file."""
    seconds: float = read_metrics(folder)["metrics"]["seconds"]
    return (folder / METRICS_FILE).stat().st_mtime - seconds


def _command(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "routing", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process.

    Raises:
        RoutingError: it failed; with the end of what it wrote to stderr.
    """
    _, complaint = process.communicate()
    if process.returncode:
        raise RoutingError(complaint.decode(errors="replace").strip()[-500:])
