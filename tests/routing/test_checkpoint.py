"""Checkpoints: a run interrupted inside a phase goes on there, as if nothing had happened."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from routing.config.run import RunConfig
from routing.data import ImageData, Split
from routing.errors import InputError
from routing.files.results_folder import CHECKPOINT_FILE
from routing.files.tensors import load_tensors, load_weights, save_tensors
from routing.models import build_model
from routing.runner import run
from routing.training.checkpoint import Progress, identity, restore_checkpoint, save_checkpoint
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import Turn

ALTERNATING = {"model.name": "aacn", "training.schedule": "alternating", "training.num_epochs": 5}
TWO_PHASES = {
    "model.name": "aacn",
    "training.num_epochs": 5,
    "training.phases": [
        {"name": "warm-up", "parts": ["backbone", "decision"], "losses": ["task"], "epochs": 2},
        {"name": "attention", "parts": ["attention"]},
    ],
}


class Killed(Exception):
    """Stands for a process that ends between two epochs."""


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in history]


@pytest.mark.parametrize("schedule", [ALTERNATING, TWO_PHASES])
@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_run_interrupted_inside_a_phase_ends_as_the_whole_one(
    tiny: dict[str, Any], folder: Path, schedule: dict[str, Any], last: int
) -> None:
    config = RunConfig.from_dict({**tiny, **schedule, "evaluation.operating_points": False})

    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == last:
            raise Killed

    run(config, out=folder / "whole")
    with pytest.raises(Killed):
        run(config, kill, folder / "resumed")
    seen: list[int] = []
    resumed = run(config, lambda row: seen.append(row["epoch"]), folder / "resumed")
    assert seen == list(range(last, 6))  # the last one again: a killed caller may not have received it
    weights, _ = load_tensors(folder / "whole" / "model.safetensors")
    again, _ = load_tensors(folder / "resumed" / "model.safetensors")
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "keys",
    [
        {"optimizer": "sgd", "ema_decay": 0.9, "label_smoothing": 0.1, "gradient_accumulation_steps": 2},
        {"optimizer": "sgd", "momentum": 0.0, "class_balance": "sampling", "augment.rand_augment": 1},
        {"ema_decay": 0.9, "class_balance": "weights", "augment.mixup": 0.2, "augment.cutmix": 1.0},
        {"channels_last": True},
    ],
)
def test_every_state_of_a_training_is_resumed_exactly(tiny: dict[str, Any], folder: Path, keys: dict[str, Any]) -> None:
    settings = {f"training.{key}": value for key, value in keys.items()}
    if "training.channels_last" in settings:  # the layout of convolutions, and of their moments
        settings |= {"model.name": "aacn", "precision": "bf16"}
    config = RunConfig.from_dict({**tiny, **settings, "training.num_epochs": 3, "evaluation.operating_points": False})

    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise Killed

    whole = run(config, out=folder / "whole")
    with pytest.raises(Killed):
        run(config, kill, folder / "resumed")
    assert timeless(run(config, out=folder / "resumed").history) == timeless(whole.history)
    for name in ("model", "best"):
        weights, _ = load_tensors(folder / "whole" / f"{name}.safetensors")
        again, _ = load_tensors(folder / "resumed" / f"{name}.safetensors")
        assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_a_run_interrupted_after_its_last_epoch_only_evaluates(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict({**tiny, "training.num_epochs": 2, "model.name": "cheap_compute"})

    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        run(config, kill, folder)
    seen: list[int] = []
    record = run(config, lambda row: seen.append(row["epoch"]), folder)
    assert seen == [2]
    assert timeless(record.history) == timeless(run(config).history)


def test_checkpoint_round_trip(tiny: dict[str, Any], folder: Path) -> None:
    """Weights, moments of what was trained, random state and history come back; what was frozen has no moments."""
    config = RunConfig.from_dict({**tiny, "model.name": "aacn"})
    info = config.dataset.info()
    model = build_model(config.model, info)
    optimizer = make_optimizer(model, config.training)
    model.get_parameter("decision.heads.mix").grad = torch.ones(2)
    optimizer.step()
    history = [{"epoch": 1, "phase": "decision", "train_loss": 0.5, "train_seconds": 1.0}]
    save_checkpoint(folder, "this one", model, optimizer, Progress(1, history))
    expected = torch.rand(3)

    other = build_model(config.model, info)
    fresh = make_optimizer(other, config.training)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    assert restore_checkpoint(folder, "another one", other, fresh) is None
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert restore_checkpoint(folder, "this one", other, fresh) == Progress(1, history)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    trained = other.get_parameter("decision.heads.mix")
    assert list(fresh.state) == [trained]
    assert torch.equal(fresh.state[trained]["exp_avg"], torch.full((2,), 0.1))  # (1 - 0.9) * gradient 1


def test_a_first_epoch_without_a_number_is_not_the_best_for_ever() -> None:
    model, progress = torch.nn.Linear(1, 1), Progress(0, [])
    for epoch, value in enumerate((float("nan"), 0.5, 0.4), start=1):
        with torch.no_grad():
            model.weight.fill_(epoch)
        progress = progress.after({"epoch": epoch, "val_srcc": value}, model, "val_srcc", True)
    assert progress.best["weight"].item() == 2


def test_identity_ignores_what_only_evaluation_reads(tiny: dict[str, Any]) -> None:
    config = RunConfig.from_dict(tiny)
    data = config.dataset.load()
    assert identity(config, data) == identity(config.replace(**{"evaluation.knob_value": 0.5}), data)
    assert identity(config, data) != identity(config.replace(**{"training.schedule": "alternating"}), data)


def test_a_training_under_other_code_is_not_gone_on_with(
    tiny: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = folder / "plugin_that_changes.py"
    plugin.write_text("")
    monkeypatch.syspath_prepend(str(folder))
    config = RunConfig.from_dict({**tiny, "plugins": ["plugin_that_changes"]})
    data = config.dataset.load()
    before = identity(config, data)
    assert identity(config, data) == before
    plugin.write_text("CHANGED = True")
    assert identity(config, data) != before


def test_weights_that_fit_in_part_are_not_loaded_in_part(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict({**tiny, "model.name": "cheap_compute"})
    info = config.dataset.info()
    narrow, wide = (build_model(config.replace(**{"model.experts.small": [width]}).model, info) for width in (4, 8))
    save_checkpoint(folder, "same", narrow, make_optimizer(narrow, config.training), Progress(1, [{"epoch": 1}]))
    before = {key: value.clone() for key, value in wide.state_dict().items()}
    assert restore_checkpoint(folder, "same", wide, make_optimizer(wide, config.training)) is None
    assert all(torch.equal(value, before[key]) for key, value in wide.state_dict().items())


def test_no_room_for_weights_is_an_error_of_the_file_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors raises an error of its own for it, which says so in words only."""

    def full(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("routing.files.tensors.save_file", full)
    with pytest.raises(OSError, match="No space left") as raised:
        save_tensors(folder / "x.safetensors", {}, {})
    assert raised.value.errno == errno.ENOSPC
    assert list(folder.iterdir()) == []


def test_a_training_on_other_data_is_not_gone_on_with(tiny: dict[str, Any], folder: Path) -> None:
    data = RunConfig.from_dict(tiny).dataset.load()
    nameless = ImageData(data.info, data.splits)
    turned = {**data.splits, "val": Split(data["val"].images.flip(0), data["val"].targets)}
    config = RunConfig.from_dict(tiny)
    digests = {identity(config, found) for found in (data, nameless, ImageData(data.info, turned))}
    assert len(digests) == 3
    assert identity(config, nameless) == identity(config, ImageData(data.info, dict(data.splits)))


def test_images_that_were_added_start_a_run_anew(
    tiny: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def noted(*args: Any, turn: Turn, **options: Any) -> dict[str, float]:
        trained.append(turn.epoch)
        return train_epoch(*args, turn=turn, **options)

    monkeypatch.setattr("routing.runner.train_epoch", noted)

    def paint(count: int) -> None:
        for name in ("dark", "light"):
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                shade, path = 40 * (name == "light") + index, folder / "data" / name / f"{index}.png"
                if not path.exists():
                    Image.new("RGB", (16, 16), (shade, shade, shade)).save(path)

    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise Killed

    paint(20)
    keys = {"dataset.name": "image_folder", "dataset.root": str(folder / "data"), "dataset.input_size": 16}
    config = RunConfig.from_dict({**keys, "training.num_epochs": 2, "model.name": "cheap_compute"})
    for count, epochs in ((20, [2]), (24, [1, 2])):
        with pytest.raises(Killed):
            run(config, kill, folder / str(count))
        paint(count)
        trained.clear()
        run(config, out=folder / str(count))
        assert trained == epochs


def test_writing_leaves_nothing_half_done(folder: Path) -> None:
    save_tensors(folder / "a.safetensors", {"x": torch.arange(3)}, {"name": "first"})
    with pytest.raises(AttributeError):
        save_tensors(folder / "a.safetensors", {"x": "no tensor"}, {})  # type: ignore[dict-item]
    tensors, metadata = load_tensors(folder / "a.safetensors")
    assert tensors["x"].tolist() == [0, 1, 2]
    assert metadata == {"name": "first"}
    assert [path.name for path in folder.iterdir()] == ["a.safetensors"]


def test_unreadable_weights_are_one_clear_line(tiny: dict[str, Any], folder: Path) -> None:
    model = build_model(RunConfig.from_dict(tiny).model, RunConfig.from_dict(tiny).dataset.info())
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        load_weights(model, folder / "model.safetensors")
    (folder / "bad").write_bytes(b"garbage")
    with pytest.raises(InputError, match="bad: not a readable safetensors file"):
        load_weights(model, folder / "bad")
    save_tensors(folder / "other", {"x": torch.zeros(1)}, {})
    with pytest.raises(InputError, match="other: the weights do not fit this model"):
        load_weights(model, folder / "other")


def test_no_checkpoint_is_left_behind(tiny: dict[str, Any], folder: Path) -> None:
    run(RunConfig.from_dict({**tiny, "evaluation.operating_points": False}), out=folder)
    assert not (folder / CHECKPOINT_FILE).exists()
