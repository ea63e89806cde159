"""The moving average of weights against a literal loop; accumulated gradients against the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from routing.config.run import RunConfig
from routing.evaluation.tasks import task_of
from routing.files.tensors import load_tensors
from routing.models import build_model
from routing.runner import run
from routing.training.averaging import WeightAverage
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import make_schedule
from routing.training.seeding import prepare_process

VIT = {"model.name": "vit", "model.width": 8, "model.heads": 2, "model.depth": 1, "model.mlp": 8, "model.dropout": 0}


def test_the_average_is_that_of_a_literal_loop() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = WeightAverage(model, 0.6)
    by_hand = {key: value.double().clone() for key, value in model.state_dict().items()}
    decays = [1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 9 / 18, 10 / 19]
    decays += [11 / 20, 12 / 21, 13 / 22, 0.6, 0.6]  # t / (t + 9) until it passes .6
    for decay in decays:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(4, 1, 3, 3))
        average.update(model)
        for key, value in model.state_dict().items():
            by_hand[key] = decay * by_hand[key] + (1 - decay) * value.double()
    own = {key: value.clone() for key, value in model.state_dict().items()}
    with average.in_place(model):
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value.double(), by_hand[key], rtol=1e-5, atol=1e-6)
            else:
                assert torch.equal(value, own[key])  # the count of batches
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())


def test_what_is_evaluated_and_kept_is_the_average(tiny: dict[str, Any], folder: Path) -> None:
    keys = {**tiny, **VIT, "training.num_epochs": 2, "evaluation.operating_points": False}
    plain = run(RunConfig.from_dict(keys), out=folder / "plain")
    averaged = run(RunConfig.from_dict({**keys, "training.ema_decay": 0.9}), out=folder / "averaged")
    assert [row["train_loss"] for row in plain.history] == [row["train_loss"] for row in averaged.history]
    assert averaged.metrics["val_loss"] == averaged.history[-1]["val_loss"] != plain.metrics["val_loss"]
    config = RunConfig.from_dict(keys)
    prepare_process(config.seed, 1)
    data = config.dataset.load()
    model, task = build_model(config.model, data.info), task_of("classification")
    model.initialise(config.model)
    optimizer, average = make_optimizer(model, config.training), WeightAverage(model, 0.9)
    schedule, history = make_schedule(config.training, model, task), []
    while (turn := schedule.turn(history)) is not None:
        train_epoch(
            model,
            data["train"],
            data.info,
            task,
            optimizer,
            config.training,
            turn=turn,
            seed=config.seed,
            autocast=torch.autocast("cpu", enabled=False),
            average=average,
        )
        history.append({"val_loss": 0.0})
    kept, _ = load_tensors(folder / "averaged" / "model.safetensors")
    assert all(torch.equal(kept[key], value) for key, value in average.tensors.items())


@pytest.mark.parametrize("images", [64, 50])  # 50: a last step of two batches, the second smaller
def test_accumulated_gradients_are_those_of_the_whole_batch(images: int) -> None:
    weights, losses = [], []
    for size, steps in ((32, 1), (8, 4)):
        keys = {"training.batch_size": size, "training.gradient_accumulation_steps": steps}
        config = RunConfig.from_dict({**VIT, **keys, "training.optimizer": "sgd", "dataset.num_train": images})
        prepare_process(0, 1)
        data = config.dataset.load()
        model, task = build_model(config.model, data.info), task_of("classification")
        turn = make_schedule(config.training, model, task).turn([])
        assert turn is not None
        row = train_epoch(
            model,
            data["train"],
            data.info,
            task,
            make_optimizer(model, config.training),
            config.training,
            turn=turn,
            seed=0,
            autocast=torch.autocast("cpu", enabled=False),
        )
        weights.append(model.state_dict())
        losses.append((row["train_loss"], row["train_accuracy"]))
    assert losses[0] == pytest.approx(losses[1])
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=1e-4, atol=1e-6)
