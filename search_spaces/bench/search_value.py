"""``routing bench search``: how good a front the same wall time buys, on the default study.

Each way runs as a fresh process with the whole machine, for the same seconds after its command, and begins with the
settings that the study runs first; what it has found is the hypervolume of all points of the trainings that had ended
by then. Ours counts operating points; a hand-written script has one point per training.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from routing.bench.tables import BenchTable
from routing.record import METRICS_FILE, read_metrics
from search_spaces.bench.plain_optuna import shared_study
from search_spaces.bench.plain_search import OBJECTIVES, STUDY, first_settings
from search_spaces.bench.replay import Trace, quantile_within
from search_spaces.bench.utilisation import fresh_process, wait
from search_spaces.bench.workload import WORKERS
from search_spaces.load import load_study
from search_spaces.progress import hypervolume
from search_spaces.results import STUDY_FILE, write_study
from search_spaces.schema import Objective, SweepStudy

SECONDS, SEEDS = 240, 5
QUICK_SECONDS = 60
_MORE_THAN_FIT = 1000
COLUMNS = {
    "way": "way",
    "trainings": "trainings ended",
    "points": "points",
    "third": "hypervolume after a third",
    "hypervolume": "after all",
    "reached": "reaches plain Ray Tune's after (s)",
    "share": "of the time",
    "worst": "worst",
    "n": "seeds",
}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the table of what each way has found."""
    seconds, seeds = (QUICK_SECONDS, 1) if quick else (SECONDS, SEEDS)
    title = f"what {seconds} seconds of search find, {WORKERS} trainings at a time"
    return [BenchTable(title, COLUMNS, compare(seconds, range(seeds)))]


def compare(seconds: float, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return one row per way, medians over the seeds; a way that does not reach the mark in time says so."""
    study = load_study(STUDY)
    assert isinstance(study, SweepStudy)
    _draw(study)
    found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in WAYS}
    for seed in seeds:
        names = [*WAYS]
        for name in names[seed % len(names) :] + names[: seed % len(names)]:
            with tempfile.TemporaryDirectory() as folder:
                started = time.time()
                WAYS[name](Path(folder), seconds, seed)
                ended = [{**note, "ended": note["ended"] - started} for note in notes(Path(folder))]
            found[name].append([note for note in ended if note["ended"] <= seconds])
    curves = {name: [curve(run, study.objectives) for run in runs] for name, runs in found.items()}
    marks = [one.at(seconds) for one in curves[RAY]]
    return [
        {
            "way": name,
            "trainings": statistics.median(len(run) for run in runs),
            "points": statistics.median(sum(len(note["points"]) for note in run) for run in runs),
            "third": statistics.median(one.at(seconds / 3) for one in curves[name]),
            "hypervolume": statistics.median(one.at(seconds) for one in curves[name]),
            **_arrival([one.reaching(mark) for one, mark in zip(curves[name], marks, strict=True)], seconds),
            "n": len(runs),
        }
        for name, runs in found.items()
    ]


def _draw(study: SweepStudy) -> None:
    """Have the data in the cache before anybody's time runs."""
    from routing.config import RunConfig

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
        volumes.append(hypervolume(points, objectives))
    return Trace([note["ended"] for note in ordered], volumes, started=len(ordered))


def _arrival(reached: list[float | None], seconds: float) -> dict[str, Any]:
    middle, worst = (quantile_within(reached, share, seconds) for share in (0.5, 1.0))
    return {"reached": middle, "share": _share(middle, seconds), "worst": _share(worst, seconds)}


def _share(arrival: float | str, seconds: float) -> float | str:
    return arrival if isinstance(arrival, str) else arrival / seconds


def _ours(folder: Path, seconds: float, seed: int) -> None:
    study = load_study(STUDY)
    assert isinstance(study, SweepStudy)
    sampler = study.sampler.model_copy(update={"seed": seed})
    write_study(folder, study.model_copy(update={"sampler": sampler, "trials": _MORE_THAN_FIT}))
    options = f"time_budget={seconds}, concurrency={WORKERS}"
    program = f"import sys, search_spaces; search_spaces.sweep(sys.argv[1], sys.argv[2], {options})"
    wait(fresh_process("-c", program, str(folder / STUDY_FILE), str(folder / "results")))


def _by_hand(library: str, folder: Path, seconds: float, seed: int) -> tuple[str, ...]:
    return ("-m", "search_spaces.bench.plain_search", library, str(folder), str(seconds), str(seed))


def _plain_ray(folder: Path, seconds: float, seed: int) -> None:
    wait(fresh_process(*_by_hand("ray", folder, seconds, seed), RAY_ADDRESS="local"))


def _plain_optuna(folder: Path, seconds: float, seed: int) -> None:
    study = shared_study(str(folder))
    for setting in first_settings():
        study.enqueue_trial(setting)
    wait(*(fresh_process(*_by_hand("optuna", folder, seconds, seed)) for _ in range(WORKERS)))


OURS, RAY = "routing sweep", "plain Ray Tune + OptunaSearch"
WAYS: dict[str, Callable[[Path, float, int], None]] = {
    OURS: _ours,
    RAY: _plain_ray,
    "plain Optuna, two processes": _plain_optuna,
}
