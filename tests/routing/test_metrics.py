"""Further metrics, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from routing.config.registry import METRICS
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.quantities import find
from routing.runner import run


def logits(classes: list[int], count: int = 6) -> torch.Tensor:
    """Logits whose order of likelihood starts with the class given, then 0, 1, 2, ..."""
    values = -torch.arange(count, dtype=torch.float32).repeat(len(classes), 1)
    values[torch.arange(len(classes)), torch.tensor(classes)] = 10.0
    return values


def test_top5() -> None:
    metric = METRICS.get("top5_accuracy")()
    # most likely 5, then 0, 1, 2, 3: class 4 is the sixth
    assert metric(logits([5, 5, 5, 5]), torch.tensor([5, 0, 3, 4])) == 0.75
    assert metric(logits([0, 1], count=3), torch.tensor([2, 2])) == 1.0


def test_balanced_accuracy_counts_classes_not_images() -> None:
    metric = METRICS.get("balanced_accuracy")()
    # class 0: three of three right; class 1: none of one; class 2 never occurs
    assert metric(logits([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1])) == 0.5


def test_calibration_error() -> None:
    metric = METRICS.get("calibration_error")()
    sure = torch.tensor([[0.0, 50.0]] * 4)  # certain of class 1, right in one of four
    assert metric(sure, torch.tensor([1, 0, 0, 0])) == pytest.approx(0.75)
    honest = torch.tensor([[0.0, 1.0986123]] * 4)  # log 3: says 0.75, right in three of four
    assert metric(honest, torch.tensor([1, 1, 1, 0])) == pytest.approx(0.0, abs=1e-6)


def test_metrics_of_a_run_are_in_its_record_and_points(tiny: dict[str, Any]) -> None:
    record = run(RunConfig.from_dict({**tiny, "evaluation.metrics": ["top5_accuracy", "calibration_error"]}))
    assert record.metrics["val_top5_accuracy"] >= record.metrics["val_accuracy"]
    assert all("val_calibration_error" in point.metrics for point in record.points)
    assert "val_top5_accuracy" in record.history[0]
    housekeeping = {"seconds", "latency_repeats", "latency_batch_size", "router_state", "threshold", "temperature"}
    assert {name for name in record.metrics if find(name) is None} <= housekeeping


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"evaluation.metrics": ["top5"]}, r"unknown metric 'top5'.*valid: top5_accuracy"),
        (
            {"evaluation.metrics": ["top5_accuracy"], "dataset.name": "quality", "model.name": "hyperiqa"}
            | {"dataset.num_train": 20, "dataset.num_val": 20, "dataset.num_test": 20},
            r"'top5_accuracy' is not defined for the task quality .*it is for: classification",
        ),
    ],
)
def test_metrics_that_cannot_be(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(RunConfig.from_dict(keys))
