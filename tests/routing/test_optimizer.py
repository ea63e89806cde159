"""Optimisers and learning rates against what a hand would compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from routing.config.run import RunConfig
from routing.config.training import TrainingSection
from routing.errors import InputError
from routing.models import build_model
from routing.models.base import CountedPart, ModelOutput, VisionModel
from routing.training.optimizer import SCALE, learning_rate, make_optimizer, set_learning_rate


class Line(VisionModel):
    """One weight matrix and its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 1)

    def forward(self, images: Tensor) -> ModelOutput:
        return ModelOutput(self.head(images))

    def counted_parts(self) -> dict[str, CountedPart]:
        return {"head": CountedPart(self.head, (torch.zeros(1, 2),), 2)}


def test_sgd_takes_nesterov_steps_and_decays_matrices_only() -> None:
    torch.manual_seed(0)
    model = Line()
    weight, bias = (value.detach().clone() for value in model.parameters())
    settings = TrainingSection(optimizer="sgd", momentum=0.9, weight_decay=0.1, learning_rate=0.5)
    optimizer = make_optimizer(model, settings)
    inputs = torch.tensor([[1.0, 2.0]])
    velocity_weight, velocity_bias = torch.zeros(1, 2), torch.zeros(1)
    for rate in (0.5, 0.25):
        set_learning_rate(optimizer, rate)
        optimizer.zero_grad()
        model.head(inputs).sum().backward()
        optimizer.step()
        for value, velocity, gradient in (
            (weight, velocity_weight, inputs + 0.1 * weight),
            (bias, velocity_bias, torch.ones(1)),
        ):
            velocity.mul_(0.9).add_(gradient)
            value -= rate * (gradient + 0.9 * velocity)
    torch.testing.assert_close(model.head.weight.detach(), weight)
    torch.testing.assert_close(model.head.bias.detach(), bias)


def test_a_part_may_learn_from_a_later_step_on() -> None:
    model = Line()
    settings = TrainingSection(optimizer="sgd", momentum=0.9, weight_decay=0.0, learning_rate=0.5)
    optimizer, bias = make_optimizer(model, settings), model.head.bias.detach().clone()
    inputs = torch.tensor([[1.0, 2.0]])
    model.head.bias.requires_grad_(False)
    model(inputs).prediction.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    model.head.bias.requires_grad_(True)
    model(inputs).prediction.sum().backward()
    optimizer.step()  # its first: gradient 1, the look ahead of Nesterov adds 0.9
    torch.testing.assert_close(model.head.bias.detach(), bias - 0.5 * 1.9)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rate_goes_up_and_down(schedule: str, rates: list[float]) -> None:
    settings = TrainingSection(learning_rate=1, lr_schedule=schedule, warmup_fraction=0.2)  # type: ignore[arg-type]
    assert [learning_rate(settings, step, 10) for step in range(10)] == pytest.approx(rates)


def vit(**keys: object) -> tuple[VisionModel, TrainingSection]:
    model = {"model.name": "vit", "model.width": 8, "model.heads": 2, "model.depth": 2, "model.mlp": 8}
    config = RunConfig.from_dict({**model, **{f"training.{key}": value for key, value in keys.items()}})
    return build_model(config.model, config.dataset.info()), config.training


def scales(model: VisionModel, settings: TrainingSection) -> dict[str, float]:
    """Return the rate of every parameter of two groups, as a multiple, by name; decay is left off vectors."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in make_optimizer(model, settings).param_groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
        found |= {names[id(parameter)]: group[SCALE] for parameter in group["params"]}
    assert len(found) == len(names)
    return found


def test_layer_decay_counts_from_the_output() -> None:
    """Two blocks: head and last norm at the full rate, then .5, .25, and .125 for what comes before the blocks."""
    found = scales(*vit(layer_decay=0.5))
    expected = {"core.head": 1, "core.norm": 1, "core.blocks.1": 0.5, "core.blocks.0": 0.25}
    expected |= {"core.embedding": 0.125, "core.cls_token": 0.125, "core.positions": 0.125}
    for name, scale in found.items():
        assert scale == next(value for part, value in expected.items() if name.startswith(part)), name


def test_a_part_has_its_own_rate_which_layer_decay_multiplies() -> None:
    config = RunConfig.from_dict({"training.learning_rate_multipliers.big": 10})
    found = scales(build_model(config.model, config.dataset.info()), config.training)
    assert {scale for name, scale in found.items() if name.startswith("big.")} == {10}
    assert {scale for name, scale in found.items() if not name.startswith("big.")} == {1}
    both = scales(*vit(**{"layer_decay": 0.5, "learning_rate_multipliers": {"blocks": 4, "head": 2}}))
    found = both["core.blocks.1.norm_1.weight"], both["core.head.weight"], both["core.cls_token"]
    assert found == (2, 2, 0.125)


def test_the_rate_of_a_step_is_in_proportion() -> None:
    config = RunConfig.from_dict({"training.learning_rate_multipliers": {"head": 3}})
    optimizer = make_optimizer(build_model(config.model, config.dataset.info()), config.training)
    set_learning_rate(optimizer, 0.1)
    assert {round(group["lr"], 9) for group in optimizer.param_groups} == {0.1, 0.3}


def test_a_part_or_an_order_that_is_not_there_is_one_line() -> None:
    config = RunConfig.from_dict({"training.learning_rate_multipliers.haed": 3})
    model = build_model(config.model, config.dataset.info())
    with pytest.raises(InputError, match=r"AttentionRouting has no part 'haed'; did you mean 'head'\?"):
        make_optimizer(model, config.training)
    with pytest.raises(InputError, match=r"layer_decay 0\.5: AttentionRouting does not say which of its layers"):
        make_optimizer(model, TrainingSection(layer_decay=0.5))
    with pytest.raises(InputError, match=r"learning_rate_multipliers\.head"):
        RunConfig.from_dict({"training.learning_rate_multipliers.head": 0})
