"""Training forms, aggregators, dense_matched, post_hoc and the compute of every mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from routing.config.registry import AGGREGATORS, ROUTERS
from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.evaluation.compute import expected_flops, measure
from routing.models import build_model
from routing.models.base import VisionModel
from routing.models.patch.parts import average_pool
from routing.models.patch.routed import AttentionRouting
from routing.models.patch.training_forms import FORMS, MASKED
from routing.runner import run

INFO = DataInfo("classification", 1, 40, 10, (0.1,), (0.2,), patch_grid_size=5, patch_margin=4, facts=("box",))


def images(count: int = 7) -> Tensor:
    return torch.randn(count, 1, 40, 40, generator=torch.Generator().manual_seed(0))


def boxes(count: int = 7) -> Tensor:
    corners = torch.randint(0, 26, (count, 2), generator=torch.Generator().manual_seed(1))
    return torch.cat([corners, torch.full((count, 2), 14)], dim=1)


def model_of(**keys: Any) -> VisionModel:
    torch.manual_seed(0)
    return build_model(RunConfig.from_dict({f"model.{key}": value for key, value in keys.items()}).model, INFO)


def routed(**keys: Any) -> AttentionRouting:
    model = model_of(**keys)
    assert isinstance(model, AttentionRouting)
    return model


@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
@pytest.mark.parametrize("form", list(FORMS))
def test_training_forms_have_the_value_of_inference(form: str, aggregator: str) -> None:
    model = routed(**{"router.mode": "top_k", "router.training": form, "aggregator": aggregator}).eval()
    with torch.no_grad():
        conditional = model(images())
    encoded = model.encode(images())
    trained = model.train_form(encoded, model.decide(model.evidence(encoded)))
    assert 0 < int(conditional.units_executed["big"].sum()) < 7 * 25
    torch.testing.assert_close(trained.prediction, conditional.prediction, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("form", "big", "small"), [("counterfactual", 5, 12), ("dense", 12, 12), ("sparse", 5, 7)])
def test_rows_a_training_form_really_computes(form: str, big: int, small: int) -> None:
    rows = {"big": 0, "small": 0}

    def branch(name: str) -> torch.nn.Module:
        module = torch.nn.Linear(3, 2)
        module.register_forward_hook(lambda _, inputs, __: rows.__setitem__(name, rows[name] + len(inputs[0])))
        return module

    hard = torch.arange(12) < 5
    features = FORMS[form](branch("big"), branch("small"), torch.randn(12, 3), hard, hard.float())
    assert features.shape == (12, 2)
    assert rows == {"big": big, "small": small}


@pytest.mark.parametrize("form", list(FORMS))
def test_a_masked_form_has_the_values_and_gradients_of_the_plain_one(form: str) -> None:
    torch.manual_seed(0)
    big, small = (torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).double() for _ in range(2))
    patches, hard = torch.randn(12, 3, dtype=torch.float64), torch.rand(12) < 0.4
    inputs = patches.requires_grad_(), torch.rand(12, dtype=torch.float64).requires_grad_()
    wanted = [*inputs, *big.parameters(), *small.parameters()]
    answers = [forms[form](big, small, patches, hard, inputs[1], None) for forms in (FORMS, MASKED)]
    gradients = [torch.autograd.grad(answer.square().sum(), wanted) for answer in answers]
    torch.testing.assert_close(answers[1], answers[0])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("mode", list(ROUTERS))
@pytest.mark.parametrize("aggregator", ["score_weighted", "attention"])
@torch.no_grad()
def test_executed_compute_is_the_closed_form_in_every_mode(mode: str, aggregator: str) -> None:
    if mode == "post_hoc" and aggregator != "score_weighted":
        pytest.skip("post_hoc routes by the weights of score-weighted pooling")
    model = routed(**{"router.mode": mode, "aggregator": aggregator}).eval()
    facts = {"box": boxes()} if "box" in model.needs else {}
    report = measure(model, images(), **facts)
    assert torch.equal(report.executed_per_image, report.closed_form_per_image)


@pytest.mark.parametrize("pool", [1, 2, 3])
@pytest.mark.parametrize("shape", [(4, 1, 40, 40), (2, 3, 33, 46)])
def test_average_pool_is_that_of_torch_to_the_last_bit(pool: int, shape: tuple[int, ...]) -> None:
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(average_pool(pixels, pool), torch.nn.functional.avg_pool2d(pixels, pool))


def test_the_two_other_aggregators_by_hand() -> None:
    features = torch.tensor([[[1.0, 0.0], [3.0, 2.0]]])
    scores = torch.tensor([[0.0, torch.log(torch.tensor(3.0))]])
    torch.testing.assert_close(AGGREGATORS.get("mean")(2)(features, scores), torch.tensor([[2.0, 1.0]]))
    torch.testing.assert_close(AGGREGATORS.get("score_weighted")(2)(features, scores), torch.tensor([[2.5, 1.5]]))
    attention = AGGREGATORS.get("attention")(2)
    with torch.no_grad():
        attention.relevance.weight.copy_(torch.tensor([[0.0, 0.5 * torch.log(torch.tensor(3.0))]]))
        attention.relevance.bias.fill_(9.0)  # the same for all: a softmax does not see it
    torch.testing.assert_close(attention(features, scores), torch.tensor([[2.5, 1.5]]))


class TestPostHoc:
    def test_trains_exactly_as_full_compute(self, tiny: dict[str, Any]) -> None:
        full = run(RunConfig.from_dict({**tiny, "model.name": "full_compute"}))
        post_hoc = run(RunConfig.from_dict({**tiny, "model.router.mode": "post_hoc"}))
        assert post_hoc.history[0]["train_loss"] == full.history[0]["train_loss"]
        everything = next(point for point in post_hoc.points if point.routing_ratio == 1.0)
        assert everything.metrics["val_accuracy"] == pytest.approx(full.metrics["val_accuracy"], abs=1e-9)
        assert everything.flops == full.metrics["flops"]
        assert post_hoc.metrics["params"] == full.metrics["params"]

    @torch.no_grad()
    def test_skips_what_it_does_not_route_and_weights_sum_to_one(self) -> None:
        model = routed(**{"router.mode": "post_hoc", "router.budget.target": 0.3}).eval()
        output, encoded = model(images()), model.encode(images())
        top = encoded.scores_BN.topk(int(output.units_executed["big"][0]), dim=1)
        features = model.big(model.grid.all(images())).view(7, 25, -1)
        kept = features.gather(1, top.indices.unsqueeze(2).expand(-1, -1, features.shape[2]))
        reference = model.head((kept * top.values.softmax(1).unsqueeze(2)).sum(1))
        torch.testing.assert_close(output.prediction, reference, rtol=1e-5, atol=1e-5)
        assert list(output.units_executed) == ["big"]
        assert float(measure(model, images()).executed_per_image[0]) / model.dense_flops == pytest.approx(
            0.3, abs=0.5 / 25
        )

    def test_needs_score_weighted_pooling(self) -> None:
        with pytest.raises(InputError, match=r"'post_hoc' routes by the weights of the pooling.*not 'mean'"):
            RunConfig.from_dict({"model.router.mode": "post_hoc", "model.aggregator": "mean"})


class TestDenseMatched:
    @pytest.mark.parametrize("target", [0.2, 0.3, 0.5, 0.9, 1.0])
    def test_costs_what_the_routed_model_is_allowed(self, target: float) -> None:
        matched = expected_flops(RunConfig.from_dict({"model.name": "dense_matched", "model.budget.target": target}))
        routed_cost = expected_flops(RunConfig.from_dict({"model.router.budget.target": target}))
        assert matched == pytest.approx(routed_cost, rel=0.01)

    @torch.no_grad()
    def test_is_full_compute_with_narrower_layers(self) -> None:
        model = model_of(**{"name": "dense_matched", "budget.target": 0.3, "experts.big": [64, 32]}).eval()
        first, second = model.hidden["big"]
        assert 0 < first < 64
        assert second == max(1, round(first / 64 * 32))
        assert list(model(images()).units_executed) == ["big"]
        assert model.dense_flops == model_of(**{"name": "full_compute", "experts.big": [64, 32]}).dense_flops

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"budget.target": 0.01}, r"budget\.target 0\.01 is out of reach.*valid: 0\.\d+ <= target <= 1"),
            ({"experts.big": []}, "no hidden width to make narrower"),
        ],
    )
    def test_what_cannot_be_matched(self, keys: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            model_of(name="dense_matched", **keys)


@pytest.mark.parametrize("mode", ["oracle", "random"])
def test_a_run_of_a_control_has_its_points_and_certificate(tiny: dict[str, Any], mode: str) -> None:
    record = run(RunConfig.from_dict({**tiny, "model.router.mode": mode}))
    assert record.metrics["routing_ratio"] == pytest.approx(0.2)
    assert [point.is_default for point in record.points].count(True) == 1
    assert len(record.points) >= 8
    assert record.certificate is not None
    if mode == "oracle":
        assert record.certificate["recall"] > 0.8  # five cells of 8 px hold most of a digit of 14 px
        assert record.certificate["gap_closed_oracle"] in (None, pytest.approx(1.0, abs=1e-9))


@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_and_aggregator_trains_in_bf16(tiny: dict[str, Any], form: str, aggregator: str) -> None:
    keys = {"model.router.training": form, "model.aggregator": aggregator, "precision": "bf16", "dataset.num_train": 64}
    record = run(RunConfig.from_dict({**tiny, **keys, "model.router.mode": "sigmoid_gate"}))
    assert record.history[0]["train_loss"] < 10
