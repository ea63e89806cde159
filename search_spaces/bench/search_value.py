"""``routing bench search``: how good a front the same study buys, and how soon.

Each way runs the trials of the default study as a fresh process with the whole machine, and begins with the settings
that the study runs first; what it has found is the hypervolume of all points of the trainings that had ended by then.
Ours counts operating points; a hand-written script has one point per training.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from routing.bench.tables import BenchTable
from routing.files.record import read_metrics
from routing.files.results_folder import METRICS_FILE, STUDY_FILE
from routing.objectives import Objective, volume_of
from search_spaces.bench.plain_optuna import shared_study
from search_spaces.bench.plain_search import OBJECTIVES, STUDY, first_settings
from search_spaces.bench.replay import Trace, quantile_within
from search_spaces.bench.utilisation import fresh_process, wait
from search_spaces.bench.workload import WORKERS
from search_spaces.ledger.folder import write_study
from search_spaces.study.load import load_study
from search_spaces.study.schema import SweepStudy

SEEDS = 5
QUICK_TRIALS = 4
FIRST_SECONDS = 240.0
_NEVER = "not reached"
COLUMNS = {
    "way": "way",
    "trainings": "trainings ended",
    "points": "points",
    "seconds": "after (s)",
    "hypervolume": "hypervolume",
    "third": "after a third of plain Ray Tune's time",
    "reached": "reaches plain Ray Tune's after (s)",
    "share": "of its time",
    "worst": "worst",
    "n": "seeds",
}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables of what each way has found: with all trials of the study, and in its first minutes."""
    study = load_study(STUDY)
    assert isinstance(study, SweepStudy)
    trials, seeds = (QUICK_TRIALS, 1) if quick else (study.trials, SEEDS)
    _draw(study)
    runs = search(trials, range(seeds))
    title = f"what {trials} trials of the default study find, {WORKERS} at a time"
    tables = [BenchTable(title, COLUMNS, compare(runs, study.objectives))]
    if not quick:
        first = compare(runs, study.objectives, FIRST_SECONDS)
        tables.append(BenchTable(f"what its first {FIRST_SECONDS:g} seconds find", COLUMNS, first))
    return tables


def search(trials: int, seeds: Sequence[int]) -> dict[str, list[list[dict[str, Any]]]]:
    """Run every way under every seed, in turns; return by way, for each seed, its ``notes`` after the command."""
    found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in WAYS}
    names = [*WAYS]
    for seed in seeds:
        for name in names[seed % len(names) :] + names[: seed % len(names)]:
            with tempfile.TemporaryDirectory() as folder:
                started = time.time()
                WAYS[name](Path(folder), trials, seed)
                found[name].append([{**note, "ended": note["ended"] - started} for note in notes(Path(folder))])
    return found


def compare(
    runs: dict[str, list[list[dict[str, Any]]]], objectives: tuple[Objective, ...], limit: float = math.inf
) -> list[dict[str, Any]]:
    """Return one row per way, medians over the seeds, as of ``limit`` seconds after the command.

    Plain Ray Tune's time is the limit, or its last training's end where it ended before. A way is compared to it under
    the same seed; one that does not reach its hypervolume within the limit says so.
    """
    runs = {name: [[note for note in run if note["ended"] <= limit] for run in seeds] for name, seeds in runs.items()}
    curves = {name: [curve(run, objectives) for run in seeds] for name, seeds in runs.items()}
    marks = [one.volumes[-1] for one in curves[RAY]]
    times = [one.spent[-1] if limit == math.inf else limit for one in curves[RAY]]
    return [
        {
            "way": name,
            "trainings": statistics.median(len(run) for run in runs[name]),
            "points": statistics.median(sum(len(note["points"]) for note in run) for run in runs[name]),
            "seconds": statistics.median(one.spent[-1] for one in found),
            "hypervolume": statistics.median(one.volumes[-1] for one in found),
            "third": statistics.median(one.at(seconds / 3) for one, seconds in zip(found, times, strict=True)),
            **_arrival([one.reaching(mark) for one, mark in zip(found, marks, strict=True)], times),
            "n": len(found),
        }
        for name, found in curves.items()
    ]


def _draw(study: SweepStudy) -> None:
    """Fill the data cache before any time is measured."""
    from routing.config.run import RunConfig

    RunConfig.from_dict(study.base).dataset.load()


def notes(folder: Path) -> list[dict[str, Any]]:
    """Return ``ended`` (epoch seconds) and ``points`` of every training: as noted, or of a results folder."""
    noted = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    if noted:
        return noted
    found = []
    for path in folder.glob(f"results/trials/*/{METRICS_FILE}"):
        points = [[point[metric] for metric in OBJECTIVES] for point in read_metrics(path.parent)["points"]]
        found.append({"ended": path.stat().st_mtime, "points": points})
    return found


def curve(notes: Sequence[dict[str, Any]], objectives: tuple[Objective, ...]) -> Trace:
    """Return the hypervolume after each training that ended, over seconds after the command."""
    ordered = sorted(notes, key=lambda note: note["ended"])
    points: list[list[float]] = []
    volumes = []
    for note in ordered:
        points += note["points"]
        volumes.append(volume_of(points, objectives))
    return Trace([note["ended"] for note in ordered], volumes, started=len(ordered))


def _arrival(reached: Sequence[float | None], times: Sequence[float]) -> dict[str, Any]:
    shares = [None if one is None else one / seconds for one, seconds in zip(reached, times, strict=True)]
    return {"reached": _within(reached, 0.5), "share": _within(shares, 0.5), "worst": _within(shares, 1.0)}


def _within(values: Sequence[float | None], share: float) -> float | str:
    found = quantile_within(values, share, math.inf)
    return _NEVER if isinstance(found, str) else found


def _ours(folder: Path, trials: int, seed: int) -> None:
    study = load_study(STUDY)
    assert isinstance(study, SweepStudy)
    sampler = study.sampler.model_copy(update={"seed": seed})
    write_study(folder, study.model_copy(update={"sampler": sampler, "trials": trials}))
    program = "import sys, search_spaces; search_spaces.sweep(sys.argv[1], sys.argv[2], concurrency=int(sys.argv[3]))"
    wait(fresh_process("-c", program, str(folder / STUDY_FILE), str(folder / "results"), str(WORKERS)))


def _by_hand(library: str, folder: Path, trials: int, seed: int) -> tuple[str, ...]:
    return ("-m", "search_spaces.bench.plain_search", library, str(folder), str(trials), str(seed))


def _plain_ray(folder: Path, trials: int, seed: int) -> None:
    wait(fresh_process(*_by_hand("ray", folder, trials, seed), RAY_ADDRESS="local"))


def _plain_optuna(folder: Path, trials: int, seed: int) -> None:
    study = shared_study(str(folder))
    for setting in first_settings():
        study.enqueue_trial(setting)
    wait(*(fresh_process(*_by_hand("optuna", folder, trials, seed)) for _ in range(WORKERS)))


OURS, RAY = "routing sweep", "plain Ray Tune + OptunaSearch"
WAYS: dict[str, Callable[[Path, int, int], None]] = {
    OURS: _ours,
    RAY: _plain_ray,
    "plain Optuna, two processes": _plain_optuna,
}
