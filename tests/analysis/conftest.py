"""A synthetic results folder that follows the contracts: real configurations, made-up metrics."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from routing.config.run import RunConfig
from routing.files.record import OperatingPoint, TrialRecord
from routing.files.tensors import save_tensors
from routing.files.yaml_io import dump

MODELS = (
    ("full_compute", None),
    ("cheap_compute", None),
    ("no_routing", None),
    ("attention_routing", "learnable_threshold"),
    ("attention_routing", "top_k"),
    ("attention_routing", "sigmoid_gate"),
    ("attention_routing", "random"),
)
FULL_FLOPS = 1.3e6
CHEAP_FLOPS = 1.8e5
OBJECTIVES = [
    {"metric": "val_accuracy", "goal": "maximize", "reference": 0.1},
    {"metric": "flops", "goal": "minimize", "reference": 2e6},
]


def accuracy_at(ratio: float, mode: str | None, rng: random.Random) -> float:
    """Return a saturating accuracy over the routing ratio, worse when patches are picked at random."""
    speed = 5.0 if mode == "random" else 18.0
    return round(0.45 + 0.43 * (1 - math.exp(-speed * ratio)) + rng.gauss(0, 0.006), 6)


def make_record(number: int, rng: random.Random) -> TrialRecord:
    """Return a finished trial: a baseline with one point, or a routed model with eight."""
    model, mode = MODELS[number % len(MODELS)]
    keys: dict[str, Any] = {"model.name": model, "seed": number, "dataset.patch_grid_size": (4, 5, 8)[number % 3]}
    ratios = {"full_compute": [1.0], "no_routing": [1.0], "cheap_compute": [0.0]}.get(model)
    if mode is not None:
        keys["model.router.mode"] = mode
        keys["model.router.temperature"] = round(math.exp(rng.uniform(-2, 1)), 4)
        keys["model.router.threshold_init"] = round(rng.uniform(-1, 1), 4)
        ratios = [0.04, 0.08, 0.12, 0.16, 0.25, 0.35, 0.5, 1.0]
    assert ratios is not None
    points = []
    for index, ratio in enumerate(ratios):
        flops = CHEAP_FLOPS + ratio * (FULL_FLOPS - CHEAP_FLOPS) * rng.uniform(0.97, 1.03)
        accuracy = accuracy_at(ratio, mode, rng) if mode else {1.0: 0.885, 0.0: 0.46}[ratio] + rng.gauss(0, 0.004)
        points.append(
            OperatingPoint(
                knob="threshold" if mode else "none",
                knob_value=round(1 - 2 * ratio, 3) if mode else None,
                is_default=index == len(ratios) // 2,
                flops=flops,
                flops_p5=flops * 0.9,
                flops_p95=flops * 1.1,
                params=31_000 + 10 * number,
                metrics={"val_accuracy": min(accuracy, 1.0)},
                routing_ratio=ratio if mode else None,
            )
        )
    default = next(point for point in points if point.is_default)
    metrics: dict[str, Any] = {
        **default.metrics,
        "flops": default.flops,
        "params": default.params,
        "routing_ratio": default.routing_ratio,
        "epochs": 4,
        "train_seconds": round(rng.uniform(8, 14), 3),
        "seconds": 16.0,
        "router_state": "healthy" if mode else None,
    }
    history = [
        {"epoch": e, "train_loss": 2.0 / e, "val_accuracy": default.metrics["val_accuracy"] * e / 4}
        for e in (1, 2, 3, 4)
    ]
    certificate = {"state": "healthy", "rate": default.routing_ratio, "gap_closed": 0.93} if mode else None
    return TrialRecord(RunConfig.from_dict(keys), metrics, points, history, certificate)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with the union of their columns, an empty field where a row lacks one."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def build_results(
    folder: Path,
    trials: int = 21,
    seed: int = 0,
    name: str = "synthetic",
    weights: bool = True,
    unfinished: bool = True,
) -> Path:
    """Write a results folder with ``trials`` finished trials and, if asked, one pruned, failed and running each."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    trial_rows: list[dict[str, Any]] = []
    point_rows: list[dict[str, Any]] = []
    for number in range(trials):
        record = make_record(number, rng)
        keys = record.config.dotted()
        own = folder / "trials" / str(number)
        record.write(own)
        if weights:
            save_tensors(own / "model.safetensors", {"trial": torch.tensor(number)}, {})
        trial_rows.append({"number": number, "state": "COMPLETE", "reason": None, **keys, **record.metrics})
        point_rows += [{"trial": number, **point.row(), **keys} for point in record.points]
    if unfinished:
        keys = RunConfig.from_dict({"model.router.mode": "top_k"}).dotted()
        reasons = {"PRUNED": "rung 2: rank 5 of 6", "FAIL": "loss is nan in epoch 2", "RUNNING": None, "WAITING": None}
        for offset, (state, reason) in enumerate(reasons.items()):
            trial_rows.append({"number": trials + offset, "state": state, "reason": reason, **keys})
    write_csv(folder / "trials.csv", trial_rows)
    write_csv(folder / "points.csv", point_rows)
    study = {"kind": "sweep", "name": name, "question": "Can routing save compute?", "objectives": OBJECTIVES}
    (folder / "study.yaml").write_text(dump(study), encoding="utf-8")
    environment = {"versions": {"torch": "2.15.0"}, "device": "cpu", "threads": 1, "seed": 0, "git_commit": None}
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


def repeat_results(folder: Path, copies: int) -> None:
    """Make the tables of a results folder ``copies`` times as long, each copy under trial numbers of its own."""
    trials = len(pd.read_csv(folder / "trials.csv"))
    for name, key in (("trials.csv", "number"), ("points.csv", "trial")):
        table = pd.read_csv(folder / name)
        again = [table.assign(**{key: table[key] + trials * copy}) for copy in range(copies)]
        pd.concat(again).to_csv(folder / name, index=False)


ARMS = {"baseline": {}, "mode=top_k": {"model.router.mode": "top_k"}, "mode=random": {"model.router.mode": "random"}}


def build_ablation(folder: Path, seeds: int = 5, seed: int = 0, name: str = "arms") -> Path:
    """Write an ablation of three arms: the second equals the baseline on average, the third is 20 points worse."""
    rng = random.Random(seed)
    trial_rows: list[dict[str, Any]] = []
    point_rows: list[dict[str, Any]] = []
    for number, (arm, one) in enumerate((arm, one) for arm in ARMS for one in range(seeds)):
        config = RunConfig.from_dict({**ARMS[arm], "seed": one})
        accuracy = 0.88 - (0.2 if arm == "mode=random" else 0.0) + 0.01 * one + rng.gauss(0, 0.003)
        flops = 3.0e5 + rng.gauss(0, 2e3)
        point = OperatingPoint("threshold", 0.5, True, flops, flops, flops, 31_000, {"val_accuracy": accuracy}, 0.2)
        metrics = {"val_accuracy": accuracy, "flops": flops, "params": 31_000, "epochs": 4, "train_seconds": 9.0}
        TrialRecord(config, metrics, [point]).write(folder / "trials" / str(number))
        trial_rows.append(
            {"number": number, "state": "COMPLETE", "reason": "", "arm": arm, **config.dotted(), **metrics}
        )
        point_rows.append({"trial": number, "arm": arm, **point.row(), **config.dotted()})
    write_csv(folder / "trials.csv", trial_rows)
    write_csv(folder / "points.csv", point_rows)
    study = {"kind": "ablation", "name": name, "question": "Does the mode matter?", "objectives": OBJECTIVES}
    (folder / "study.yaml").write_text(dump(study), encoding="utf-8")
    (folder / "environment.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def make_results(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a synthetic results folder below a temporary path."""

    def make(folder: str = "results", **options: Any) -> Path:
        return build_results(tmp_path / folder, **options)

    return make


@pytest.fixture
def only_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``analyze`` draw no figure of parameters and knobs: they take most of its time."""
    monkeypatch.setattr("analysis.figures.which._parameter_figures", lambda *_: [])
    monkeypatch.setattr("analysis.figures.which.knob_curves", lambda _: {})


@pytest.fixture
def make_longer() -> Callable[[Path, int], None]:
    """Return the function that repeats the rows of a results folder."""
    return repeat_results


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic results folder that the tests of a file only read; its name is a script."""
    return build_results(tmp_path_factory.mktemp("read") / "results", name="<script>alert('x')</script>")


@pytest.fixture
def make_ablation(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a synthetic ablation below a temporary path."""

    def make(folder: str = "ablation", **options: Any) -> Path:
        return build_ablation(tmp_path / folder, **options)

    return make
