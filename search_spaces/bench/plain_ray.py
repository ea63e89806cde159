"""What a user would write with Ray Tune and OptunaSearch and their default settings. Usage: FOLDER TRIALS EPOCHS"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from search_spaces.bench.workload import RANGE, WORKERS, config_of, timed_run


def trainable(config: dict[str, Any]) -> None:
    """Train one run and report its two objectives."""
    accuracy, flops = timed_run(config_of(config["target"], config["epochs"]), Path(config["folder"]))
    tune.report({"val_accuracy": accuracy, "flops": flops})


def main(folder: str, trials: int, epochs: int) -> None:
    """Run the sweep; a lost trial is an error: what remains would be another benchmark."""
    ray.init(num_cpus=WORKERS)
    results = tune.Tuner(
        trainable,
        param_space={"target": tune.loguniform(*RANGE), "epochs": epochs, "folder": folder},
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(metric=["val_accuracy", "flops"], mode=["max", "min"]),
            num_samples=trials,
        ),
        run_config=tune.RunConfig(storage_path=f"{folder}/ray", name="plain"),
    ).fit()
    if results.errors:
        raise results.errors[0]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
