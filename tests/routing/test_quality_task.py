"""The task `quality`: metrics by hand and against scipy, losses, a whole run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from routing.config.run import RunConfig
from routing.evaluation import correlation
from routing.evaluation.correlation import agreement, logistic, logistic_mapping, rank_correlation
from routing.evaluation.tasks import task_of
from routing.runner import run


def test_metrics_by_hand() -> None:
    # ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15) = 0.8
    found = agreement(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.1, 0.3, 0.2, 0.4]))
    assert found["srcc"] == pytest.approx(0.8)
    assert found["plcc"] == pytest.approx(0.8)
    assert found["krcc"] == pytest.approx((5 - 1) / 6)  # of 6 pairs one is the wrong way round
    assert found["rmse"] == pytest.approx(np.sqrt(0.02 / 4))


def test_scipy_agrees_with_ties() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 5, 200) / 5
    predictions = np.round(targets + rng.normal(0, 0.3, 200), 1)
    found = agreement(predictions, targets)
    assert found["srcc"] == pytest.approx(stats.spearmanr(predictions, targets).statistic)
    assert found["plcc"] == pytest.approx(stats.pearsonr(predictions, targets).statistic)
    assert found["krcc"] == pytest.approx(stats.kendalltau(predictions, targets).statistic)


def test_srcc_knows_order_only() -> None:
    targets = np.linspace(0, 1, 50)
    found = agreement(np.exp(5 * targets), targets)
    assert found["srcc"] == pytest.approx(1)
    assert found["plcc"] < 0.9


def test_logistic_mapping_undoes_a_logistic() -> None:
    predictions = np.linspace(-3, 3, 100)
    targets = logistic(predictions, 0.9, 0.1, 0.5, 0.4)
    mapped = logistic_mapping(predictions, targets)
    assert mapped is not None
    np.testing.assert_allclose(mapped, targets, atol=1e-6)
    found = agreement(predictions, targets)
    assert found["plcc_logistic"] == pytest.approx(1)
    assert found["plcc"] < 0.99


def test_logistic_by_hand() -> None:
    # in the middle: half way between low and high
    assert logistic(np.array([0.5]), 0.9, 0.1, 0.5, 0.4)[0] == pytest.approx(0.5)
    assert logistic(np.array([0.9]), 0.9, 0.1, 0.5, 0.4)[0] == pytest.approx(0.1 + 0.8 / (1 + np.exp(-1)))


def test_falling_predictions_are_negative() -> None:
    targets = np.linspace(0, 1, 30)
    assert agreement(-targets, targets)["srcc"] == pytest.approx(-1)


@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_constant_predictions_order_nothing(constant: float) -> None:
    found = agreement(np.full(20, constant), np.linspace(0, 1, 20))
    assert [found[name] for name in ("srcc", "plcc", "krcc", "plcc_logistic")] == [0.0] * 4
    assert rank_correlation(np.linspace(0, 1, 20), np.full(20, 0.5)) == 0.0


def test_no_numbers() -> None:
    found = agreement(np.array([0.1, np.nan, 0.3, 0.2, 0.1]), np.linspace(0, 1, 5))
    assert np.isnan([found["srcc"], found["plcc"], found["rmse"]]).all()


@pytest.mark.parametrize(("rate", "raw", "fitted"), [(4, 0.893, 0.991), (6, 0.813, 0.977), (8, 0.744, 0.963)])
def test_the_fit_is_found_where_predictions_saturate(rate: float, raw: float, fitted: float) -> None:
    """32 predictions that pile up at the top: a fit from one start gives up there, and raw PLCC was reported."""
    targets = np.linspace(0, 1, 32)
    found = agreement(1 - np.exp(-rate * targets), targets)
    assert found["plcc"] == pytest.approx(raw, abs=5e-4)
    assert found["plcc_logistic"] == pytest.approx(fitted, abs=5e-4)


@pytest.mark.parametrize("seed", range(8))
def test_no_curve_on_a_fine_grid_fits_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0, 1, 32)
    predictions = np.tanh(4 * (targets - rng.uniform(0, 1))) + rng.normal(0, 0.15, 32)
    scaled = (predictions - predictions.mean()) / predictions.std()
    best = max(
        correlation.correlation(logistic(scaled, 1, 0, middle, slope), targets)
        for middle in np.linspace(-3, 3, 61)
        for slope in np.geomspace(0.05, 10, 30)
    )
    found = agreement(predictions, targets)
    assert found["plcc_logistic"] >= best - 1e-3
    assert found["plcc_logistic"] >= found["plcc"] - 1e-9


def test_a_model_that_orders_wrongly_is_not_turned_round(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(5)
    targets = rng.uniform(0, 1, 32)
    predictions = -0.14 * (targets - targets.mean()) + rng.normal(0, 0.3, 32)
    task = task_of("quality")
    for _ in range(21):
        found = task.metrics(torch.tensor(predictions), torch.tensor(targets))
    assert found["plcc"] < 0
    assert found["plcc_logistic"] == found["plcc"]
    assert [record.getMessage() for record in caplog.records] == [
        "plcc_logistic is the raw plcc: predictions fall where quality rises, and the curve must rise "
        "(said once per run)"
    ]
    assert correlation.logistic_mapping(targets[:3], targets[:3]) is None


@pytest.mark.parametrize(("loss", "value"), [("auto", 0.3), ("l1", 0.3), ("mse", 0.1)])
def test_losses(loss: str, value: float) -> None:
    # errors 0.2 and 0.4
    predictions, targets = torch.tensor([0.2, 0.4]), torch.tensor([0.0, 0.0])
    assert float(task_of("quality", loss).loss(predictions, targets)) == pytest.approx(value)


def test_a_whole_run(tiny_quality: dict[str, Any], tmp_path: Any) -> None:
    rows: list[dict[str, Any]] = []
    record = run(RunConfig.from_dict({**tiny_quality, "training.num_epochs": 2}), rows.append, tmp_path / "run")
    for row in rows:
        assert {"val_srcc", "val_plcc", "val_krcc", "val_plcc_logistic", "val_rmse", "flops"} <= set(row)
        weights = [row[f"fusion_weight_{stage}"] for stage in (1, 2, 3, 4)]
        assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert len(record.points) == 20
    assert sum(point.is_default for point in record.points) == 1
    assert record.points[0].metrics["val_srcc"] == record.metrics["val_srcc"]
    columns = (tmp_path / "run" / "history.csv").read_text().splitlines()[0].split(",")
    assert {"val_srcc", "fusion_weight_1", "fusion_weight_4", "train_loss_fewer_scales"} <= set(columns)


def test_same_seed_same_numbers(tiny_quality: dict[str, Any]) -> None:
    first, second = (run(RunConfig.from_dict(tiny_quality)).metrics for _ in range(2))
    assert first["val_srcc"] == second["val_srcc"]
    assert first["train_loss"] == second["train_loss"]


def test_patience_watches_srcc(tiny_quality: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9, 0.9, 0.9])
    monkeypatch.setattr(
        "routing.evaluation.correlation.agreement", lambda *_: {"srcc": next(scores, 0.9), "rmse": 1.0, "plcc": 0.0}
    )
    keys = {**tiny_quality, "training.num_epochs": 6, "training.patience": 2, "evaluation.operating_points": False}
    # best in epoch 2, then two epochs without a better one
    assert run(RunConfig.from_dict(keys)).metrics["epochs"] == 4


@pytest.mark.slow
def test_quality_is_learned_in_little_time() -> None:
    """SRCC 0.88 for one of the fusions: the target of the embedded data."""
    config = RunConfig.from_dict(
        {
            "dataset.name": "quality",
            "model.name": "hyperiqa",
            "model.backbone.widths": [8, 16, 24, 32],
            "model.fusion.mode": "cross_scale",
            "model.fusion.width": 16,
            "model.crop_size": 40,
            "model.fewer_scales_weight": 0.0,
            "training.num_epochs": 5,
            "training.learning_rate": 5e-3,
        }
    )
    record = run(config)
    best = max(point.metrics["val_srcc"] for point in record.points)
    assert best >= 0.88
