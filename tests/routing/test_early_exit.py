"""Early exits: who leaves where, what that costs, that the others are never computed, and what the certificate says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from routing.config.run import RunConfig, valid_keys
from routing.data import Split
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.evaluation.evaluate import Evaluator
from routing.evaluation.exit_certificate import certify_exits
from routing.evaluation.tasks import Classification
from routing.models.exits.model import EarlyExit
from routing.runner import run
from tests.routing.photographs import built, draw_photographs, exported, photograph_info

NETWORKS: list[dict[str, Any]] = [
    {"network.name": "conv_net", "network.widths": [8, 16, 16], "head.hidden": 8, "distillation": 1.0},
    {"network.name": "torchvision_net", "network.architecture": "resnet18", "exits": [2]},
    {"network.name": "timm_net", "network.architecture": "mobilenetv3_small_050"},
    {"network.name": "vit", "network.depth": 3, "network.patch_size": 8, "network.width": 32, "network.mlp": 32},
]


def exits(**keys: Any) -> EarlyExit:
    torch.manual_seed(0)
    model = built(name="early_exit", **keys)
    assert isinstance(model, EarlyExit)
    return model


def images(count: int = 24) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_an_image_leaves_at_its_first_confident_head() -> None:
    model = exits()
    confidences_BE = torch.tensor([[0.9, 0.1], [0.5, 0.6], [0.4, 0.4], [0.8, 0.95]])
    assert model.first_confident(confidences_BE, 0.5).tolist() == [0, 1, 2, 0]  # not at 0.5 itself; 2 is the last head
    assert model.first_confident(confidences_BE, 0.0).tolist() == [0, 0, 0, 0]
    assert model.first_confident(confidences_BE, 1.0).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("keys", NETWORKS, ids=lambda keys: str(keys["network.name"]))
def test_every_confidence_predicts_and_executes_what_its_curve_says(keys: dict[str, Any]) -> None:
    model, batch = exits(**keys), images()
    with torch.no_grad():
        values = model.knob_values([batch])
        assert (values[0], values[-1]) == (0.0, 1.0)
        for value, along in zip(values, model.along_knob(batch, values), strict=True):
            model.set_knob(value)
            with FlopCounterMode(display=False) as counter:
                own = model(batch)
            torch.testing.assert_close(own.prediction, along.prediction, atol=1e-4, rtol=1e-4)
            assert all(torch.equal(own.units_executed[name], along.units_executed[name]) for name in own.units_executed)
            closed = model.closed_form(own.units_executed, len(batch)).sum()
            if keys["network.name"] != "vit":  # its attention is fused: torch's plain counter sees no products
                assert counter.get_total_flops() / 2 == closed
    model.set_knob(values[4])
    with torch.no_grad():
        torch.testing.assert_close(model.traceable()(batch), model(batch).prediction, atol=1e-4, rtol=1e-4)
    model.set_knob(1.0)
    assert measure(model, batch[:2]).executed_per_image.tolist() == [model.expected_flops()] * 2
    heads = sum(part.per_unit for name, part in model.counted_parts().items() if name.startswith("exit"))
    assert model.expected_flops() - heads == model.dense_flops == model.network.expected_flops()


def test_training_has_a_loss_per_head_and_temperatures_learn_from_nothing_else() -> None:
    model = exits(**NETWORKS[0]).train()
    output = model(images(8))
    assert {*output.auxiliary, *output.losses, "task"} == set(model.loss_terms())
    weight, scaled = output.auxiliary["temperature1"]
    (weight * scaled.square().sum()).backward()
    assert model.log_scales.grad is not None
    assert model.log_scales.grad[0] != 0
    assert all(p.grad is None or not p.grad.any() for p in model.network.parameters())


def test_the_certificate_tells_confident_exits_from_random_ones() -> None:
    """Two heads by hand: the first is right where it is sure; half of the images are easy."""
    model = exits(**{"network.widths": [8, 8]})
    targets = torch.arange(40) % 10
    sure = (torch.arange(40) < 20).unsqueeze(1)
    right = torch.nn.functional.one_hot(targets, 10) * 10.0
    wrong = torch.nn.functional.one_hot((targets + 1) % 10, 10) * 0.1
    model.every_head = lambda batch: [torch.where(sure, right, wrong), right]  # type: ignore[method-assign]
    split = Split(torch.zeros(40, 3, 32, 32, dtype=torch.uint8), targets, {})
    evaluator = Evaluator(split, photograph_info(), Classification(), 40, torch.autocast("cpu", enabled=False))
    routed = evaluator.several(model, 1, lambda batch: model.along_knob(batch.images, [0.8]), ())[0]
    found = certify_exits(model, evaluator, routed)
    assert (found["score_routed"], found["score_full"], found["score_exit1"]) == (1.0, 1.0, 0.5)
    assert (found["rate"], found["left_exit1"], found["state"]) == (0.5, 0.5, "healthy")
    # at random half of the images leave, and half of those are the wrong ones: near 0.75
    assert 0.55 < found["score_random"] < 0.95
    assert (found["gap_closed"], found["score_oracle"]) == (1.0, 1.0)
    assert found["flops_oracle"] == routed.flops.double().mean()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"exits": [3]}, r"model.exits \[3\]: the network has 3 stages.*\(valid: 1 to 2\)"),
        ({"network.name": "full_compute"}, r"'full_compute' cannot be cut into stages \(valid: conv_net"),
        ({"network.width_fractions": [0.5, 1]}, r"leave model.network.width_fractions empty"),
        ({"network.name": "vit", "network.pruning.method": "random"}, r"pruning.method 'random'.*valid: none"),
        ({"network.name": "timm_net", "network.architecture": "mixer_s16_224"}, r"'mixer_s16_224' cannot be cut"),
        ({"network.widhts": [8]}, r"unknown key 'model.network.widhts'; did you mean 'model.network.widths'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        exits(**keys)


def test_keys_of_the_network_are_known() -> None:
    known = valid_keys({"model": {"name": "early_exit"}})
    assert {"model.network.name", "model.network.widths", "model.network.architecture"} <= set(known)
    training = RunConfig.from_dict({"model.name": "early_exit"}).training
    assert training.optimizer == "sgd"


def test_another_network_leaves_the_keys_of_the_old_one_behind() -> None:
    config = RunConfig.from_dict({"model.name": "early_exit", "model.network.widths": [8, 8], "model.confidence": 0.5})
    changed = config.replace(**{"model.network.name": "timm_net"})
    assert (changed.dotted()["model.network.architecture"], changed.dotted()["model.confidence"]) == ("resnet10t", 0.5)


def test_a_run_reports_exits_and_certificate(folder: Path) -> None:
    draw_photographs(folder / "images")
    keys = {
        "dataset.name": "image_folder",
        "dataset.root": str(folder / "images"),
        "dataset.input_size": 16,
        "dataset.val_fraction": 0.25,
        "model.name": "early_exit",
        "model.network.widths": [8, 16],
        "training.batch_size": 12,
        "training.num_epochs": 4,
    }
    record = run(RunConfig.from_dict(keys))
    assert record.certificate is not None
    assert record.certificate["score_routed"] == record.metrics["val_accuracy"]
    assert "left_at_exit1" in record.history[-1]
    costs = [point.flops for point in record.points if point.knob_value in (0.0, 1.0)]
    assert min(costs) < 0.9 * max(costs)


def test_an_exported_graph_predicts_the_same() -> None:
    model, batch = exits(**NETWORKS[0]), images()
    with torch.no_grad():
        model.set_knob(model.knob_values([batch])[5])
        torch.testing.assert_close(exported(model, batch), model(batch).prediction, atol=1e-4, rtol=1e-4)
