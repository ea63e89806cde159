"""A results folder of any size with made-up numbers, to time what reads it: real columns, real configurations."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from routing.config.run import RunConfig
from routing.files.atomic import write_text
from routing.files.results_folder import COMPLETE, ENVIRONMENT_FILE, POINTS_FILE, STUDY_FILE, TRIALS_FILE
from routing.files.yaml_io import dump

MODELS: tuple[dict[str, Any], ...] = (
    {"model.name": "full_compute"},
    {"model.name": "cheap_compute"},
    {"model.router.mode": "top_k"},
    {"model.router.mode": "learnable_threshold"},
    {"model.router.mode": "random"},
)
POINTS = (0.04, 0.08, 0.12, 0.16, 0.25, 0.35, 0.5, 1.0)
STUDY = {
    "kind": "sweep",
    "name": "synthetic",
    "objectives": [
        {"metric": "val_accuracy", "goal": "maximize", "reference": 0.1},
        {"metric": "flops", "goal": "minimize", "reference": 2e6},
    ],
}


def write_results(folder: Path, trials: int) -> None:
    """Write study.yaml, trials.csv and points.csv of this many finished trials; there are no trial folders."""
    write_text(folder / STUDY_FILE, dump(STUDY))
    write_text(folder / ENVIRONMENT_FILE, "{}")
    configs = [RunConfig.from_dict(keys).dotted() for keys in MODELS]
    rng = random.Random(0)
    rows = [_trial(number, configs, rng) for number in range(trials)]
    _write(folder / TRIALS_FILE, (trial for trial, _ in rows))
    _write(folder / POINTS_FILE, (point for _, points in rows for point in points))


def _trial(number: int, configs: list[dict[str, Any]], rng: random.Random) -> tuple[dict[str, Any], list[Any]]:
    """Return the row of a trial and those of its points: accuracy saturates over the routing ratio."""
    keys = {**configs[number % len(configs)], "seed": number}
    routed = keys["model.name"] == "attention_routing"
    if routed:
        keys["model.router.temperature"] = round(10 ** rng.uniform(-1, 0.5), 4)
    points = []
    for ratio in POINTS if routed else (float(keys["model.name"] == "full_compute"),):
        accuracy = min(1.0, 0.45 + 0.45 * ratio**0.3 + rng.gauss(0, 0.01))
        flops = (0.2e6 + ratio * 1.3e6) * rng.uniform(0.95, 1.05)
        point = {"trial": number, "knob": "threshold" if routed else "", "knob_value": 1 - ratio if routed else None}
        point |= {"is_default": ratio == 0.25 or not routed, "routing_ratio": ratio if routed else None}
        points.append({**point, "val_accuracy": accuracy, "flops": flops, "params": 31_000, **keys})
    default = next(point for point in points if point["is_default"])
    row = {"number": number, "state": COMPLETE, "reason": None, **keys, "epochs": 4, "train_seconds": 10.0}
    return {**row, **{key: default[key] for key in ("val_accuracy", "flops", "params", "routing_ratio")}}, points


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    listed = list(rows)
    columns = list(dict.fromkeys(column for row in listed[: 2 * len(MODELS) * len(POINTS)] for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
