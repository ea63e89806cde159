"""The same trials for every way of running a sweep: real digits trainings of about two or ten seconds."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing.config.run import RunConfig

WORKERS = 2
BASE: dict[str, Any] = {
    "dataset.name": "digits",
    "dataset.num_train": 6_000,
    "dataset.num_val": 1_000,
    "dataset.num_test": 64,
    "model.name": "attention_routing",
    "model.router.mode": "top_k",
    "evaluation.operating_points": False,
}
TARGET = "model.router.budget.target"
RANGE = (0.35, 0.36)
"""Narrow, so that all proposals cost the same. Between 0.2 and 0.6 the cost of proposals differed by 10 %."""


@dataclass(frozen=True)
class Workload:
    """How many trials, and how long one is: ``epochs`` of 6,000 images."""

    seconds: str
    epochs: int
    trials: int

    def words(self) -> list[str]:
        """Return it as arguments of the scripts."""
        return [str(self.trials), str(self.epochs)]


SHORT = Workload("two", epochs=3, trials=24)
LONG = Workload("ten", epochs=15, trials=8)


def config_of(target: float, epochs: int) -> RunConfig:
    """Return the run of one trial."""
    return RunConfig.from_dict({**BASE, "training.num_epochs": epochs, TARGET: target})


def note(folder: Path, started: float, train_seconds: float) -> None:
    """Leave one line per trial: when it started and ended (epoch seconds), and how long it trained."""
    line = json.dumps({"started": started, "ended": time.time(), "train_seconds": train_seconds})
    (folder / f"{started:.6f}.json").write_text(line, encoding="utf-8")


def timed_run(config: RunConfig, folder: Path) -> tuple[float, float]:
    """Train one configuration, note its times, and return its two objectives."""
    from routing.runner import run

    started = time.time()
    metrics = run(config).metrics
    note(folder, started, metrics["train_seconds"])
    return metrics["val_accuracy"], metrics["flops"]
