"""What a run leaves behind beside its numbers: TensorBoard events, last and best weights, the time inference takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from routing.config.run import RunConfig
from routing.data import DataInfo, Split
from routing.errors import InputError
from routing.evaluation.evaluate import Evaluator
from routing.evaluation.latency import MIN_REPEATS, measure_latency
from routing.evaluation.tasks import task_of
from routing.files.results_folder import CHECKPOINT_FILE
from routing.files.tensors import load_tensors
from routing.models.base import CountedPart, ModelOutput, VisionModel
from routing.runner import run
from routing.saved import evaluate_saved, load
from routing.training.checkpoint import Progress


class Killed(Exception):
    """Stands for a process that ends between two epochs."""


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(folder)).Reload()
    assert "_hparams_/session_start_info" in seen.PluginTagToContent("hparams")
    return {tag: [(event.step, event.value) for event in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}


def test_events_are_the_history_also_after_an_interruption(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict({**tiny, "training.num_epochs": 3})

    def die(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        run(config, die, folder)
    record = run(config, out=folder)
    seen = events(folder)
    for tag, column in (
        ("validation/accuracy", "val_accuracy"),
        ("train/loss", "train_loss"),
        ("compute/flops", "flops"),
    ):
        expected = [(row["epoch"], pytest.approx(row[column])) for row in record.history]
        assert seen[tag] == expected
    assert {"run/routing_ratio", "run/threshold"} <= set(seen)


@pytest.mark.parametrize(
    ("values", "higher_is_better", "best"),
    [
        ([0.1, 0.5, 0.3], True, 2),
        ([0.5, 0.5, 0.1], True, 1),
        ([3.0, 2.0, 1.0], False, 3),
        ([1.0, math.nan, 0.5], True, 1),
    ],
)
def test_the_best_weights_are_of_the_first_best_epoch(values: list[float], higher_is_better: bool, best: int) -> None:
    model, progress = nn.Linear(1, 1), Progress(0, [])
    for epoch, value in enumerate(values, start=1):
        nn.init.constant_(model.weight, epoch)
        progress = progress.after({"epoch": epoch, "val_x": value}, model, "val_x", higher_is_better)
    assert progress.best["weight"].item() == best
    assert progress.epoch == 3


def test_best_and_last_weights_of_a_run(tiny: dict[str, Any], folder: Path) -> None:
    # a learning rate that ruins the model in its last epochs
    config = RunConfig.from_dict(
        {**tiny, "training": {"num_epochs": 4, "learning_rate": 0.03, "lr_schedule": "constant", "batch_size": 32}}
    )
    record = run(config, out=folder)
    accuracies = [row["val_accuracy"] for row in record.history]
    best = evaluate_saved(folder, weights="best")[0]
    last = evaluate_saved(folder)[0]
    assert best.metrics["val_accuracy"] == max(accuracies)
    assert last.metrics["val_accuracy"] == accuracies[-1] == record.metrics["val_accuracy"]
    assert load(folder, "best").model is not load(folder).model


def test_best_weights_survive_an_interruption(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict({**tiny, "training.num_epochs": 3, "training.learning_rate": 0.05})

    def die(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        run(config, die, folder / "a")
    assert (folder / "a" / CHECKPOINT_FILE).is_file()
    run(config, out=folder / "a")
    run(config, out=folder / "b")
    first, second = (load_tensors(folder / name / "best.safetensors")[0] for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in second)


def test_one_file_where_the_last_epoch_is_the_best(tiny: dict[str, Any], folder: Path) -> None:
    run(RunConfig.from_dict(tiny), out=folder)
    assert (folder / "best.safetensors").samefile(folder / "model.safetensors")


def test_missing_best_weights(tiny: dict[str, Any], folder: Path) -> None:
    run(RunConfig.from_dict(tiny), out=folder)
    (folder / "best.safetensors").unlink()
    with pytest.raises(InputError, match=r"no best\.safetensors: it was not kept"):
        evaluate_saved(folder, weights="best")


class Sleeper(VisionModel):
    """Takes a known time per image."""

    def __init__(self, milliseconds: float) -> None:
        super().__init__()
        self.milliseconds, self.calls = milliseconds, 0

    def forward(self, images: torch.Tensor) -> ModelOutput:
        import time

        time.sleep(self.milliseconds / 1000 * len(images))
        self.calls += 1
        return ModelOutput(torch.zeros(len(images), 2))

    def counted_parts(self) -> dict[str, CountedPart]:
        return {}


def test_latency_of_a_known_sleeper() -> None:
    split = Split(torch.zeros(100, 1, 4, 4, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64))
    info = DataInfo("classification", 1, 4, 2, (0.5,), (0.2,))
    autocast = torch.autocast("cpu", enabled=False)
    evaluator = Evaluator(split, info, task_of("classification"), 256, autocast)
    model = Sleeper(1.0).train()
    latency = measure_latency(model, evaluator)
    assert latency.ms_per_image == pytest.approx(1.0, rel=0.5)
    assert latency.batch_size == 64
    assert model.calls == latency.repeats + 1
    assert latency.repeats >= MIN_REPEATS
    assert model.training


def test_a_record_says_how_long_inference_took(tiny: dict[str, Any]) -> None:
    metrics = run(RunConfig.from_dict(tiny)).metrics
    assert metrics["ms_per_image"] > 0
    assert metrics["latency_repeats"] >= MIN_REPEATS


@pytest.mark.parametrize("mode", ["gumbel", "quantile_threshold"])
def test_what_is_drawn_and_followed_in_training_survives_an_interruption(
    tiny: dict[str, Any], folder: Path, mode: str
) -> None:
    keys = {"model.router.mode": mode, "model.router.threshold_jitter": 0.5, "training.num_epochs": 2}
    config = RunConfig.from_dict({**tiny, **keys, "training.augment.crop": 2})

    def die(row: dict[str, Any]) -> None:
        raise Killed

    whole = run(config)
    with pytest.raises(Killed):
        run(config, die, folder)
    resumed = run(config, out=folder)
    assert resumed.history[1]["train_loss"] == whole.history[1]["train_loss"]
    assert resumed.metrics["val_accuracy"] == whole.metrics["val_accuracy"]
    assert resumed.points[0].knob_value == whole.points[0].knob_value
