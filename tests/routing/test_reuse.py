"""Weights that are not trained again: an identical training of this machine, or a frozen model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from routing.cli import main
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.models import build_model
from routing.runner import run
from routing.training.reuse import training_digest

SMALL = {"model.name": "vit", "model.width": 16, "model.heads": 2, "model.depth": 3, "model.mlp": 32}
PRUNED = {"model.pruning.method": "diversity", "model.pruning.k_anchors": 3, "model.pruning.top_m": 9}


def test_arms_of_a_pruning_ablation_share_a_training(
    tiny: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.from_dict({**tiny, **SMALL, "training.num_epochs": 2, "training.reuse": True, "seed": 3})
    first = run(config)

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("routing.runner.train_epoch", never)
    reports: list[dict[str, float]] = []
    arm = run(config.replace(**PRUNED), reports.append, folder)
    assert [row["epoch"] for row in reports] == [2]
    assert [row["train_loss"] for row in arm.history] == [row["train_loss"] for row in first.history]
    assert arm.metrics["train_seconds"] == first.metrics["train_seconds"]
    assert arm.metrics["flops"] < first.metrics["flops"]
    unpruned = next(point for point in arm.points if point.knob_value == "none")
    assert unpruned.metrics == first.points[0].metrics
    with pytest.raises(AssertionError, match="trained again"):
        run(config.replace(seed=4))


def test_what_tells_trainings_apart(tiny: dict[str, Any]) -> None:
    config = RunConfig.from_dict({**tiny, **SMALL})
    digest = digest_of(config)
    assert digest_of(config.replace(**PRUNED, **{"evaluation.batch_size": 7, "training.reuse": True})) == digest
    for change in ({"seed": 1}, {"model.width": 32}, {"training.learning_rate": 0.1}, {"dataset.seed": 1}):
        assert digest_of(config.replace(**change)) != digest
    patient = config.replace(**{"training.patience": 1})  # evaluation then decides when to stop
    assert digest_of(patient.replace(**PRUNED)) != digest_of(patient)


def test_what_a_configuration_does_not_say_tells_trainings_apart(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.from_dict({**tiny, **SMALL})
    data = config.dataset.load()
    model = build_model(config.model, data.info)
    digest = training_digest(config, data, model)
    assert training_digest(config, replace(data, key="other"), model) != digest
    nameless = replace(data, key="")
    darker = replace(nameless, splits={"train": replace(data["train"], images=data["train"].images // 2)})
    assert training_digest(config, nameless, model) != training_digest(config, darker, model)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert training_digest(config, data, model) != digest
    monkeypatch.syspath_prepend(tmp_path)
    found = set()
    for content in ("A = 1", "A = 2"):
        (tmp_path / "my_plugin_of_reuse.py").write_text(content)
        found.add(training_digest(config.replace(plugins=["my_plugin_of_reuse"]), data, model))
    assert len(found) == 2


def digest_of(config: RunConfig) -> str:
    torch.manual_seed(config.seed)
    data = config.dataset.load()
    return training_digest(config, data, build_model(config.model, data.info))


def test_a_frozen_model_gives_operating_points(tiny: dict[str, Any], folder: Path) -> None:
    trained = run(RunConfig.from_dict({**tiny, **SMALL}), out=folder / "trained")
    reports: list[dict[str, float]] = []
    keys = {**tiny, **SMALL, "model.weights": str(folder / "trained"), "training.num_epochs": 0}
    frozen = run(RunConfig.from_dict(keys), reports.append, folder / "frozen")
    assert [row["epoch"] for row in reports] == [0]
    assert frozen.metrics["epochs"] == 0
    assert [point.row() for point in frozen.points] == [point.row() for point in trained.points]


def test_a_frozen_model_from_the_command_line(
    tiny: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(RunConfig.from_dict({**tiny, **SMALL}), out=folder / "trained")
    keys = {**tiny, **SMALL, "model.weights": folder / "trained", "training.num_epochs": 0}
    words = [f"--{key}={value}" for key, value in keys.items()]
    assert main(["train", "--out", str(folder / "frozen"), *words]) == 0
    assert "epoch 0/0  val_accuracy" in capsys.readouterr().out


def test_frozen_without_weights(tiny: dict[str, Any], folder: Path) -> None:
    with pytest.raises(InputError, match=r"training.num_epochs 0 evaluates given weights, but there are no"):
        RunConfig.from_dict({**tiny, **SMALL, "training.num_epochs": 0})
    config = RunConfig.from_dict({**tiny, **SMALL, "training.num_epochs": 0, "model.weights": str(folder / "none")})
    with pytest.raises(InputError, match=r"no such file, and no folder with model.safetensors"):
        run(config)
