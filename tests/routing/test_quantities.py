"""What a measured number is: one record whatever the split, asked by everyone, declared by plugins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from routing import quantities
from routing.cli import main
from routing.config.registry import METRICS, TASKS
from routing.errors import InputError
from routing.quantities import Quantity, find, heading, is_metric, label, on_split, ordered, quantity, split_of

STUDY = """\
kind: sweep
name: refused
base: {training.num_epochs: 1, evaluation.metrics: [top5_accuracy, calibration_error, odd_error], plugins: [errors]}
space: {seed: {int: [0, 9]}}
trials: 2
objectives:
  - {metric: METRIC, goal: GOAL, reference: REFERENCE}
  - {metric: flops, goal: minimize, reference: COST}
"""
PLUGIN = """\
from routing.config.registry import METRICS

@METRICS.register("odd_error")
class OddError:
    higher_is_better = False
    label, unit, factor, digits, low, high = "largest error", "%", 100.0, ".1f", 0.0, 1.0
    tasks = ("classification",)

    def __call__(self, predictions, targets):
        return 1.0
"""


@pytest.fixture
def plugins_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is not there for the next one."""
    monkeypatch.setattr(quantities, "_known", dict(quantities._known))
    for registry in (METRICS, TASKS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


def test_a_split_is_a_prefix_of_one_quantity() -> None:
    for name in ("accuracy", "val_accuracy", "test_accuracy", "cross_accuracy"):
        assert quantity(name) is quantity("accuracy")
    assert [split_of(name) for name in ("val_loss", "train_loss", "train_seconds", "flops")] == [
        "val", "train", None, None,
    ]  # fmt: skip
    assert quantity("train_seconds").is_cost
    assert find("val_flops") is None  # a cost belongs to no split
    assert (on_split("val_srcc", "test"), on_split("flops", "test")) == ("test_srcc", "flops")
    assert (label("test_top5_accuracy"), heading("val_srcc")) == ("test top-5 accuracy", "val SRCC")
    with pytest.raises(InputError, match=r"unknown quantity 'acuracy'; did you mean 'accuracy'\?"):
        quantity("acuracy")


def test_every_shipped_metric_and_task_is_known() -> None:
    assert all(quantity(name).on_request and quantity(name).tasks for name in METRICS)
    for name in TASKS:
        if name in quantities.OUR_TASKS:
            assert TASKS.get(name).metric in quantities.reported_by(name)


def test_columns_of_a_table_are_what_the_rows_have() -> None:
    names = ["trial", "knob", "flops", "val_loss", "recall", "test_accuracy", "val_of_a_plugin", "val_accuracy"]
    assert ordered(names) == ["val_accuracy", "val_loss", "val_of_a_plugin", "test_accuracy", "flops", "recall"]
    assert [name for name in names if is_metric(name)] == [
        "flops", "val_loss", "test_accuracy", "val_of_a_plugin", "val_accuracy",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("val_accuracy", 0.2, ""),
        ("val_accuracy", 1.0, ""),
        ("val_accuracy", 20, "accuracies are shares: 0.2"),
        ("val_calibration_error", 5, "calibration errors are shares: 0.05"),
        ("val_accuracy", -1, "accuracy is from 0 to 1"),
        ("val_srcc", 90, "SRCC is from -1 to 1"),
        ("val_rmse", -0.1, "RMSE is at least 0"),
        ("flops", 0, "compute is above 0"),
        ("train_seconds", 0, ""),
    ],
)
def test_what_a_value_can_be(name: str, value: float, why: str) -> None:
    assert quantity(name).why_not(value) == why
    assert quantity(name).can_be(value) is not bool(why)


@pytest.mark.parametrize(
    ("metric", "goal", "reference", "cost", "message"),
    [
        ("val_top5_accuracy", "minimize", 0.2, 1e7, "val_top5_accuracy is better the other way: goal: maximize"),
        ("val_calibration_error", "maximize", 0.2, 1e7, "val_calibration_error is better the other way: goal: min"),
        ("val_odd_error", "maximize", 0.2, 1e7, "val_odd_error is better the other way: goal: minimize"),
        ("val_odd_error", "minimize", 40, 1e7, "largest errors are shares: 0.4"),
        ("val_accuracy", "maximize", 20, 1e7, "val_accuracy: no value can be 20; accuracies are shares: 0.2"),
        ("val_accuracy", "maximize", 0.2, -1, "reference of flops: no value can be -1; compute is above 0"),
        ("test_accuracy", "maximize", 0.2, 1e7, "unknown objective 'test_accuracy'; did you mean"),
        ("top5_accuracy", "maximize", 0.2, 1e7, "unknown objective 'top5_accuracy'; did you mean 'val_top5_accuracy'?"),
    ],
)  # fmt: skip
def test_objectives_that_cannot_be(
    metric: str, goal: str, reference: float, cost: float, message: str,
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plugins_leave: None,
) -> None:  # fmt: skip
    (folder / "errors.py").write_text(PLUGIN)
    text = STUDY.replace("METRIC", metric).replace("GOAL", goal).replace("REFERENCE", str(reference))
    (folder / "study.yaml").write_text(text.replace("COST", str(cost)))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(__import__("sys").modules, "errors", raising=False)
    assert main(["sweep", "study.yaml", "--out", "out"]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert re.search(r"study\.yaml:\d+", printed)
    assert not (folder / "out").exists()


def test_a_plugin_says_what_it_measures(plugins_leave: None) -> None:
    METRICS.register("dice")(type("Dice", (), {"higher_is_better": True, "unit": "%", "factor": 100.0, "high": 1.0}))
    found = quantity("test_dice")
    assert (found.goal, found.label, found.shown(0.5), found.tasks) == ("maximize", "dice", "50", ())
    assert "val_dice" in quantities.objectives()
    further = Quantity("boundary_error", "minimize", low=0.0, can_be_objective=True)
    segmentation = {"metric": "iou", "higher_is_better": True, "quantities": (further,)}
    TASKS.register("segmentation")(type("Segmentation", (), segmentation))
    assert quantities.reported_by("segmentation") == ["boundary_error", "iou"]
    TASKS.register("tagging")(type("Tagging", (), {"metric": "accuracy"}))
    assert quantity("accuracy").tasks == ("classification", "tagging")


@pytest.mark.parametrize(
    ("name", "says", "message"),
    [
        ("dice", {}, "metric 'dice': its class must say higher_is_better = True or False"),
        ("flops", {"higher_is_better": True}, "metric 'flops' is measured already"),
        ("val_dice", {"higher_is_better": True}, "metric 'val_dice': a name must not begin like that of a split"),
        ("dice", {"higher_is_better": True, "low": 2.0, "high": 1.0}, "metric 'dice': low 2.0 is not below high 1.0"),
        ("dice", {"higher_is_better": True, "factor": "percent"}, "metric 'dice': must be real number"),
        ("dice", {"higher_is_better": True, "digits": "2 digits"}, "metric 'dice': Invalid format specifier"),
    ],
)
def test_metrics_that_cannot_be(name: str, says: dict[str, object], message: str, plugins_leave: None) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        METRICS.register(name)(type("Wrong", (), says))
    assert name not in METRICS


def test_a_task_cannot_turn_a_metric_around(plugins_leave: None) -> None:
    with pytest.raises(InputError, match="task 'odd': accuracy is better the other way"):
        TASKS.register("odd")(type("Odd", (), {"metric": "accuracy", "higher_is_better": False}))
