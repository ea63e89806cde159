"""The default study as a user would search it by hand, with default settings. Usage: ray|optuna FOLDER TRIALS SEED

Both share the study's conditional space, define by run, and the settings it runs first, and train as ``routing train``
does. What a hand-written script has is one point per training; early stopping with two objectives is in neither
library.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from routing.config.run import RunConfig
from search_spaces.bench.plain_optuna import shared_study
from search_spaces.bench.workload import WORKERS
from search_spaces.study.load import load_study
from search_spaces.study.schema import SweepStudy
from search_spaces.study.space import Space

STUDY = "digits"
OBJECTIVES = ["val_accuracy", "flops"]


def space_of_study() -> Space:
    """Return the space of the default study, each run with one operating point."""
    study = load_study(STUDY)
    assert isinstance(study, SweepStudy)
    return Space(study.space, {**study.base, "evaluation.operating_points": False})


def first_settings() -> list[dict[str, Any]]:
    """Return the settings that the study runs first, as its space suggests them."""
    study, space = load_study(STUDY), space_of_study()
    assert isinstance(study, SweepStudy)
    return [space.labels(setting) for setting in study.enqueue]


def train(config: RunConfig, folder: Path) -> tuple[float, float]:
    """Train one run, note its objectives and when it ended, and return the objectives."""
    from routing.runner import run

    metrics = run(config).metrics
    found = (metrics["val_accuracy"], metrics["flops"])
    note = json.dumps({"ended": time.time(), "points": [found]})
    (folder / f"{time.time_ns()}.json").write_text(note, encoding="utf-8")
    return found


def trainable(config: dict[str, Any]) -> None:
    """Train one run and report its two objectives."""
    from ray import tune

    folder = Path(config.pop("folder"))
    accuracy, flops = train(space_of_study().config(config), folder)
    tune.report({"val_accuracy": accuracy, "flops": flops})


def define_by_run(folder: str, trial: optuna.Trial) -> dict[str, Any]:
    """Suggest one setting; what is returned goes to the trainable with it."""
    space_of_study().sample(trial)
    return {"folder": folder}


def with_ray(folder: str, trials: int, seed: int) -> None:
    """Search with Ray Tune and OptunaSearch, as many trials at once as every way of the benchmark runs."""
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    ray.init(num_cpus=WORKERS)
    search = OptunaSearch(
        space=partial(define_by_run, folder),  # of a module: OptunaSearch pickles it
        metric=OBJECTIVES,
        mode=["max", "min"],
        points_to_evaluate=first_settings(),
        seed=seed,
    )
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(search_alg=search, num_samples=trials),
        run_config=tune.RunConfig(storage_path=f"{folder}/ray", name="plain"),
    ).fit()


def with_optuna(folder: str, trials: int, seed: int) -> None:
    """Search with Optuna: one of the processes that share a journal. Its sampler is left as it is, without a seed.

    The first settings are queued once, before the processes start.
    """
    space = space_of_study()

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        return train(space.config(space.sample(trial)), Path(folder))

    shared_study(folder).optimize(objective, trials // WORKERS)


if __name__ == "__main__":
    search = {"ray": with_ray, "optuna": with_optuna}[sys.argv[1]]
    search(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
