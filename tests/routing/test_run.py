"""One whole run: its files, its determinism, what an interruption costs, what a knob does."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from routing.config.run import RunConfig
from routing.data import num_steps
from routing.errors import InputError, TrialFailed
from routing.evaluation.tasks import Classification
from routing.files.record import TrialRecord, read_metrics
from routing.files.results_folder import CHECKPOINT_FILE
from routing.runner import make_evaluator, run
from routing.saved import evaluate_saved, load


class Killed(Exception):
    """Stands for a process that ends between two epochs."""


def kill_after(epoch: int) -> Any:
    def report(row: dict[str, float]) -> None:
        if row["epoch"] == epoch:
            raise Killed

    return report


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in history]


def test_files_of_a_run(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict(tiny)
    record = run(config, out=folder)
    expected = {"config.yaml", "history.csv", "metrics.json", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} >= expected
    assert not (folder / CHECKPOINT_FILE).exists()
    assert RunConfig.from_yaml(folder / "config.yaml") == config
    content = read_metrics(folder)
    assert content["metrics"]["val_accuracy"] == record.metrics["val_accuracy"]
    assert [point["is_default"] for point in content["points"]].count(True) == 1
    with (folder / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]


def test_same_configuration_same_numbers_whatever_ran_before(tiny: dict[str, Any]) -> None:
    config = RunConfig.from_dict(tiny)
    first = run(config)
    run(RunConfig.from_dict({**tiny, "seed": 5, "model.name": "full_compute"}))
    torch.manual_seed(123)
    second = run(config)
    assert timeless(first.history) == timeless(second.history)
    assert [point.row() for point in first.points] == [point.row() for point in second.points]


@pytest.mark.parametrize("mode", ["learnable_threshold", "random"])
def test_a_run_killed_between_epochs_goes_on_and_ends_the_same(tiny: dict[str, Any], folder: Path, mode: str) -> None:
    config = RunConfig.from_dict({**tiny, "training.num_epochs": 3, "model.router.mode": mode})
    whole = run(config)
    with pytest.raises(Killed):
        run(config, kill_after(2), folder)
    epochs: list[float] = []
    resumed = run(config, lambda row: epochs.append(row["epoch"]), folder)
    assert epochs == [2, 3]  # 2 is only said again
    assert timeless(resumed.history) == timeless(whole.history)
    assert [point.row() for point in resumed.points] == [point.row() for point in whole.points]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "other run"])
def test_a_useless_checkpoint_costs_only_the_time(tiny: dict[str, Any], folder: Path, damage: str) -> None:
    config = RunConfig.from_dict({**tiny, "training.num_epochs": 2})
    with pytest.raises(Killed):
        run(config if damage != "other run" else config.replace(seed=9), kill_after(1), folder)
    path = folder / CHECKPOINT_FILE
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    if damage == "garbage":
        path.write_bytes(b"not a checkpoint" * 100)
    assert timeless(run(config, out=folder).history) == timeless(run(config).history)


def test_a_loss_that_is_not_a_number_is_said(
    tiny: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classification, "loss", lambda self, predictions, targets: predictions.sum() * float("nan"))
    with pytest.raises(TrialFailed, match=r"train_loss is nan in epoch 1; try a lower training\.learning_rate"):
        run(RunConfig.from_dict(tiny), out=folder)
    assert not (folder / "metrics.json").exists()


def test_moving_the_knob_gives_the_point_of_the_curve_exactly(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict(tiny)
    record = run(config, out=folder / "a")
    point = next(point for point in record.points if not point.is_default)
    moved = run(config.replace(**{"evaluation.knob_value": point.knob_value}), out=folder / "b")
    assert moved.metrics["val_accuracy"] == point.metrics["val_accuracy"]
    assert moved.metrics["flops"] == point.flops
    assert moved.points[0].is_default
    assert moved.points[0].knob_value == point.knob_value


def test_a_saved_run_predicts_and_evaluates_as_it_did(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict(tiny)
    record = run(config, out=folder)
    again = evaluate_saved(folder, "val", curve=True)
    assert [point.row() for point in again] == [point.row() for point in record.points]
    test = evaluate_saved(folder, "test", curve=True)
    assert list(test[0].metrics) == ["test_accuracy", "test_loss"]
    assert [point.knob_value for point in test] == [point.knob_value for point in record.points]  # of validation
    saved = load(folder)
    images = config.dataset.load()["val"].images[:4]
    assert saved.predict(images).prediction.shape == (4, 10)


def test_what_a_saved_run_needs_beside_pixels(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict({**tiny, "model.router.mode": "oracle", "evaluation.operating_points": False})
    run(config, out=folder)
    saved, split = load(folder), config.dataset.load()["val"]
    with pytest.raises(InputError, match="needs the box of every image beside its pixels"):
        saved.predict(split.images[:4])
    assert saved.predict(split.images[:4], box=split.extra["box"][:4]).prediction.shape == (4, 10)


def test_metrics_come_after_all_else(tiny: dict[str, Any], folder: Path) -> None:
    """Who does more with a trained run does it before metrics.json says that the run is whole."""
    seen = []

    def more(record: TrialRecord) -> None:
        assert load(folder).predict(images).prediction.shape == (2, 10)
        seen.append((folder / "metrics.json").exists())

    config = RunConfig.from_dict(tiny)
    images = config.dataset.load()["val"].images[:2]
    run(config, out=folder, before_record=more)
    assert seen == [False]
    assert read_metrics(folder)


@pytest.mark.parametrize("model", ["aacn", "attention_routing"])
def test_a_last_image_alone_is_no_batch(tiny: dict[str, Any], model: str) -> None:
    keys = {**tiny, "model.name": model, "dataset.num_train": 65, "training.batch_size": 64}
    record = run(RunConfig.from_dict({**keys, "evaluation.operating_points": False}))
    assert record.metrics["train_loss"] > 0
    assert (num_steps(65, 64), num_steps(66, 64), num_steps(1, 64), num_steps(3, 1)) == (1, 2, 1, 3)


def test_loading_what_is_not_a_run(folder: Path, tiny: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load(folder / "none")
    with pytest.raises(InputError, match=r"not a run: it has no config\.yaml"):
        load(folder)
    (folder / "config.yaml").write_text(RunConfig.from_dict(tiny).to_yaml())
    with pytest.raises(InputError, match=r"no model\.safetensors: the run has not finished"):
        load(folder)


def test_one_step_of_training_by_seed(tiny: dict[str, Any]) -> None:
    """Another seed gives another run; the data stay the same."""
    a, b = (run(RunConfig.from_dict({**tiny, "seed": seed})) for seed in (0, 1))
    assert a.history[0]["train_loss"] != b.history[0]["train_loss"]


def test_a_budget_below_the_floor_is_refused(tiny: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"budget\.target 0\.01 is out of reach.*valid: 0\.\d+ < target <= 1"):
        run(RunConfig.from_dict({**tiny, "model.router.budget.target": 0.01}))


def test_channels_last_is_the_same_training_in_another_order_of_memory(tiny: dict[str, Any]) -> None:
    keys = {**tiny, "model.name": "aacn", "evaluation.operating_points": False}
    first, last = (run(RunConfig.from_dict({**keys, "training.channels_last": on})) for on in (False, True))
    assert last.history[0]["train_loss"] == pytest.approx(first.history[0]["train_loss"], rel=1e-4)


def test_validation_on_some_images_takes_the_same_ones_and_the_test_split_stays_whole(tiny: dict[str, Any]) -> None:
    config = RunConfig.from_dict({**tiny, "evaluation.limit": 20})
    data, device = config.dataset.load(), torch.device("cpu")
    val, test = (make_evaluator(config, data, name, device).split for name in ("val", "test"))
    assert (len(val), len(test)) == (20, len(data["test"]))
    again = make_evaluator(config.replace(seed=9), data, "val", device).split
    assert torch.equal(val.images, again.images)
    where = [int((data["val"].images == image).flatten(1).all(1).nonzero()[0, 0]) for image in val.images]
    assert where == sorted(set(where)) != list(range(20))  # in the split's order, from all of it
    assert torch.equal(val.extra["box"], data["val"].extra["box"][where])
    more = make_evaluator(config.replace(**{"evaluation.limit": 10**6}), data, "val", device).split
    assert len(more) == len(data["val"])
    accuracy = run(config).metrics["val_accuracy"] * 20
    assert accuracy == pytest.approx(round(accuracy))
