"""Dense baselines for photographs: their cost by hand and as counted, their stages, knobs, recipe, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from routing.config.run import RunConfig
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.models.base import VisionModel
from routing.models.conv.model import ConvNet
from routing.runner import run
from tests.routing.photographs import built, draw_photographs, photograph_info

NETS: list[dict[str, Any]] = [
    {"name": "conv_net"},
    {"name": "conv_net", "depth": 3, "kernel": 5, "skip_connections": True, "pool": "mean", "width_multiplier": 0.5},
    {"name": "torchvision_net", "architecture": "resnet18"},
    {"name": "torchvision_net", "architecture": "shufflenet_v2_x0_5"},
    {"name": "torchvision_net", "architecture": "convnext_tiny"},
    {"name": "timm_net", "architecture": "mobilenetv3_small_050"},
    {"name": "timm_net", "architecture": "convnext_atto"},
]


def images(side: int = 32, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def counted(model: VisionModel, batch: Tensor) -> float:
    """Return what torch counts for one image of a whole forward pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch)
    return counter.get_total_flops() / 2 / len(batch)


@pytest.mark.parametrize("keys", NETS, ids=lambda keys: str(keys.get("architecture", keys["name"])))
def test_a_net_costs_what_torch_counts_and_is_the_chain_of_its_stages(keys: dict[str, Any]) -> None:
    model = built(**keys)
    batch = images()
    assert counted(model, batch) == model.expected_flops()
    chain, features = model.chain(), model.entry(batch)
    with torch.no_grad():
        for stage in chain.stages:
            features = stage.module(features)
            assert features.shape[1:] == stage.shape_out
        torch.testing.assert_close(chain.head.module(features), model(batch).prediction)
    assert len(chain.stages) >= 2
    assert chain.multiply_adds() == model.expected_flops()


def test_the_net_of_the_published_numbers_by_hand() -> None:
    model = built(name="conv_net", widths=[12, 32, 64])
    stem = 31**2 * 2**2 * 3 * 24
    stages = [
        stem + 31**2 * 9 * 24 * 12 + 15**2 * 9 * 12 * 12,
        15**2 * 9 * 12 * 32 + 7**2 * 9 * 32 * 32,
        7**2 * 9 * 32 * 64 + 3**2 * 9 * 64 * 64,
    ]
    report = measure(model, images())
    assert list(report.by_module.values()) == [*stages, 64 * 10]
    assert report.executed_per_image.tolist() == [5_524_048] * 2


@pytest.mark.parametrize(
    ("keys", "values"),
    [({"resolutions": [16, 24, 32]}, [16, 24]), ({"width_fractions": [0.25, 0.5, 1.0]}, [0.25, 0.5])],
    ids=["resolution", "width"],
)
def test_one_training_serves_every_setting_and_each_costs_what_it_executes(
    keys: dict[str, Any], values: list[float]
) -> None:
    model = built(name="conv_net", **keys)
    batch = images()
    assert model.knob_values([batch]) == values
    costs = []
    with torch.no_grad():
        for value, output in zip(values, model.along_knob(batch, values), strict=True):
            model.set_knob(value)
            torch.testing.assert_close(model(batch).prediction, output.prediction)
            costs.append(counted(model, batch))
            assert measure(model, batch).executed_per_image.tolist() == [costs[-1]] * 2
    full = built(name="conv_net").expected_flops()
    assert costs == sorted(costs)
    assert costs[-1] < 0.6 * full
    output = model.train()(batch)
    smallest, between = output.auxiliary
    assert (smallest.startswith("smallest"), between.startswith("random")) == (True, True)
    assert model.loss_terms() == ("task", smallest, between)


def test_a_narrow_setting_reads_the_first_channels_and_its_own_batch_norms() -> None:
    model = built(name="conv_net", width_fractions=[0.5, 1.0])
    assert isinstance(model, ConvNet)
    narrow = built(name="conv_net", width_multiplier=0.5)
    state = {key: value.clone() for key, value in model.network.state_dict().items()}
    own = narrow.state_dict()
    for key, value in own.items():
        inner = key.removeprefix("network.")
        if ".norms.0." in inner or inner == "head.linear.bias":
            own[key] = state[inner]
        elif value.ndim:
            own[key] = state[inner][tuple(slice(size) for size in value.shape)]
    narrow.load_state_dict(own)
    model.set_knob(0.5)
    with torch.no_grad():
        torch.testing.assert_close(model(images()).prediction, narrow(images()).prediction)


def test_grey_images_are_given_to_named_nets_three_times() -> None:
    model = built(photograph_info(channels=1), name="torchvision_net")
    with torch.no_grad():
        assert model(images(channels=1)).prediction.shape == (2, 10)


def test_a_recipe_belongs_to_the_model_and_every_key_of_it_can_be_set() -> None:
    config = RunConfig.from_dict({"model.name": "conv_net", "training.learning_rate": 0.05})
    training = config.training
    assert (training.optimizer, training.batch_size, training.label_smoothing) == ("sgd", 256, 0.1)
    assert (training.learning_rate, training.augment.crop, training.augment.flip) == (0.05, 2, True)


def start(**keys: Any) -> None:
    """Do what a run does before it trains."""
    model = built(**keys)
    model.initialise(RunConfig.from_dict({f"model.{key}": value for key, value in keys.items()}).model)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"name": "conv_net", "kernel": 4}, r"model.kernel 4: .* odd kernel"),
        ({"name": "conv_net", "widths": [8] * 6}, r"images of 32 pixels are too small for the 6 stages"),
        (
            {"name": "conv_net", "resolutions": [64]},
            r"resolutions \[64\]: more pixels than dataset.input_size 32",
        ),
        ({"name": "conv_net", "width_fractions": [0.5]}, r"the full width is missing"),
        ({"name": "conv_net", "width_fractions": [0.5, 1], "resolutions": [16, 32]}, r"a model has one knob"),
        ({"name": "torchvision_net", "architecture": "resnet19"}, r"'resnet19'; did you mean 'resnet18'"),
        ({"name": "timm_net", "architecture": "resnet19"}, r"timm .* has no such model"),
        ({"name": "timm_net", "architecture": "resnet10t", "weights": "BEST"}, r"weights 'BEST' \(valid: DEFAULT"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text) as error:
        start(**keys)
    assert "\n" not in str(error.value)


def test_weights_of_another_number_of_classes_leave_the_classifier(folder: Path) -> None:
    source = built(photograph_info(classes=4), name="torchvision_net")
    file = folder / "weights.pth"
    torch.save(source.network.state_dict(), file)  # type: ignore[operator, union-attr]
    keys = {"model.name": "torchvision_net", "model.weights": str(file)}
    model = built(name="torchvision_net", weights=str(file))
    model.initialise(RunConfig.from_dict(keys).model)
    assert model.untrained_parts == ("head",)
    assert torch.equal(model.network.conv1.weight, source.network.conv1.weight)  # type: ignore[union-attr]


def test_a_slimmable_net_learns_photographs_and_gives_a_curve(folder: Path) -> None:
    draw_photographs(folder / "images")
    record = run(
        RunConfig.from_dict(
            {
                "dataset.name": "image_folder",
                "dataset.root": str(folder / "images"),
                "dataset.input_size": 16,
                "dataset.val_fraction": 0.25,
                "model.name": "conv_net",
                "model.widths": [8, 16],
                "model.width_fractions": [0.25, 0.5, 1.0],
                "training.batch_size": 12,
                "training.num_epochs": 6,
            }
        )
    )
    assert [(point.knob, point.knob_value) for point in record.points] == [("width", w) for w in (1.0, 0.25, 0.5)]
    assert record.points[0].flops > record.points[2].flops > record.points[1].flops
    assert record.metrics["val_accuracy"] == 1.0
