"""The router certificate: collapsed, backwards, idle and working routers are told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from routing import runner as run_module
from routing.config.run import RunConfig
from routing.evaluation.certificate import certify, router_state
from routing.evaluation.evaluate import Evaluator
from routing.models.base import VisionModel
from routing.models.patch.routed import AttentionRouting
from routing.runner import make_evaluator, run

# One small digit on an empty canvas: one or few of 16 patches hold all there is to know.
SPARSE_DIGITS: dict[str, Any] = {
    "dataset": {"fragments": 0, "digit_size": 8, "input_size": 32, "patch_grid_size": 4, "patch_margin": 0}
    | {"num_train": 2000, "num_val": 500, "num_test": 10},
    "model.aggregator": "mean",
    "model.router.budget": {"unit": "ratio", "target": 0.28},
    "training.num_epochs": 6,
    "training.batch_size": 32,
}


@pytest.mark.parametrize(
    ("numbers", "state"),
    [
        ({"rate": 0.995, "score_routed": 0.9, "score_random": 0.9}, "all_on"),
        ({"rate": 0.002, "score_routed": 0.2, "score_random": 0.2}, "all_off"),
        ({"rate": 0.25, "score_routed": 0.3, "score_random": 0.5}, "anti"),
        # two standard errors of a difference of two shares of 0.5 over 1000 images: 0.0447
        ({"rate": 0.25, "score_routed": 0.53, "score_random": 0.5}, "weak"),
        ({"rate": 0.25, "score_routed": 0.55, "score_random": 0.5}, "healthy"),
        ({"rate": 0.25, "score_routed": 0.55, "score_random": 0.5, "gap_closed": 0.74}, "weak"),
        (
            {"rate": 0.25, "score_routed": 0.9, "score_random": 0.5, "gap_closed": 1.2, "gap_closed_oracle": 0.9},
            "healthy",
        ),
        ({"rate": 0.25, "score_routed": 0.9, "score_random": 0.5, "gap_closed": 1.2, "gap_closed_oracle": 0.7}, "weak"),
        ({"rate": 0.28, "score_routed": 0.3, "score_random": 0.3, "recall": 0.2, "recall_error": 0.01}, "anti"),
        ({"rate": 0.28, "score_routed": 0.3, "score_random": 0.3, "recall": 0.27, "recall_error": 0.01}, "weak"),
    ],
)
def test_states_by_hand(numbers: dict[str, float], state: str) -> None:
    assert router_state(numbers, 1.0, 1000) == state


def test_a_metric_that_is_better_when_lower() -> None:
    numbers = {"rate": 0.25, "score_routed": 0.1, "score_random": 0.3}
    assert router_state(numbers, -1.0, 1000) == "healthy"
    assert router_state(numbers, 1.0, 1000) == "anti"


def initialised(change: Callable[[AttentionRouting], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model that a run builds start from ``change``."""
    build = run_module.build_model

    def build_changed(section: Any, info: Any) -> VisionModel:
        model = build(section, info)
        assert isinstance(model, AttentionRouting)
        with torch.no_grad():
            change(model)
        return model

    monkeypatch.setattr(run_module, "build_model", build_changed)


@pytest.mark.slow
def test_scores_initialised_too_high_meet_the_budget_and_pick_the_wrong_patches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = run(RunConfig.from_dict({**SPARSE_DIGITS, "seed": 1}))
    initialised(lambda model: model.attention.score.bias.fill_(4.0), monkeypatch)
    bad = run(RunConfig.from_dict({**SPARSE_DIGITS, "seed": 1}))
    assert good.certificate is not None
    assert bad.certificate is not None
    for certificate in (good.certificate, bad.certificate):
        assert certificate["rate"] == pytest.approx(0.28, abs=0.05)  # the rate alone tells nothing
        assert certificate["saturation"] < 0.5
    assert good.certificate["state"] == "healthy"
    assert good.certificate["recall"] > 0.5
    assert bad.certificate["state"] == "anti"
    assert bad.certificate["recall"] < bad.certificate["rate"]
    assert bad.metrics["router_state"] == "anti"


@pytest.mark.parametrize(("threshold", "state"), [(-90.0, "all_on"), (90.0, "all_off")])
def test_a_collapsed_router_is_named(tiny: dict[str, Any], threshold: float, state: str) -> None:
    record = run(RunConfig.from_dict({**tiny, "model.router.threshold_init": threshold}))
    assert record.certificate is not None
    assert record.certificate["state"] == state
    assert record.certificate[f"share_{state}"] == 1.0
    assert record.certificate["gap_closed"] is None or state == "all_off"


@pytest.fixture(scope="module")
def trained() -> tuple[AttentionRouting, Evaluator]:
    keys = {"dataset.num_train": 4000, "dataset.num_val": 600, "dataset.num_test": 10, "training.num_epochs": 2}
    config = RunConfig.from_dict({**keys, "model.router.mode": "top_k"})
    kept: list[VisionModel] = []
    build = run_module.build_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "build_model", lambda s, i: kept.append(build(s, i)) or kept[-1])
        run(config)
    data = config.dataset.load()
    assert isinstance(kept[0], AttentionRouting)
    return kept[0], make_evaluator(config, data, "val", torch.device("cpu"))


def test_a_working_router_is_healthy(trained: tuple[AttentionRouting, Evaluator]) -> None:
    model, evaluator = trained
    certificate = certify(model, evaluator, evaluator.run(model))
    assert certificate["state"] == "healthy"
    assert certificate["gap_closed"] > 0.8
    assert certificate["rate"] == pytest.approx(0.2)
    assert certificate["recall"] > 3 * certificate["rate"]
    assert certificate["grad_norm_scores"] > 0
    assert certificate["saturation"] is None  # top_k has no threshold
    assert 0 < certificate["big_share"] < 1


def test_the_same_router_turned_round_is_anti(trained: tuple[AttentionRouting, Evaluator]) -> None:
    model, evaluator = trained
    model.router.evidence = lambda encoded: -encoded.scores_BN  # type: ignore[method-assign]
    try:
        certificate = certify(model, evaluator, evaluator.run(model))
    finally:
        del model.router.evidence
    assert certificate["state"] == "anti"
    assert certificate["gap_closed"] < 0
    assert certificate["recall"] < certificate["rate"]


def test_certifying_changes_nothing(trained: tuple[AttentionRouting, Evaluator]) -> None:
    model, evaluator = trained
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first = certify(model, evaluator, evaluator.run(model))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None or parameter.requires_grad for parameter in model.parameters())
    assert certify(model, evaluator, evaluator.run(model)) == first


@pytest.mark.parametrize("mode", ["random", "permuted", "centre"])
def test_a_control_that_does_not_look_is_not_called_healthy(tiny: dict[str, Any], mode: str) -> None:
    record = run(RunConfig.from_dict({**tiny, "model.router.mode": mode, "training.num_epochs": 2}))
    assert record.certificate is not None
    assert record.certificate["state"] in ("weak", "anti")
