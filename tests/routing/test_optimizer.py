"""Optimisers, learning-rate schedules and training losses against what torch computes or a hand would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from routing.config.training import TrainingSection
from routing.evaluation.tasks import Classification
from routing.models.base import VisionModel
from routing.training.criterion import criterion_of
from routing.training.optimizer import learning_rate, make_optimizer, set_learning_rate


class Line(VisionModel):
    """One weight matrix and its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 1)


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


def test_label_smoothing_is_that_of_torch_and_of_its_definition() -> None:
    logits: Tensor = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3, 1, 1, 2, 0])
    loss = criterion_of(TrainingSection(label_smoothing=0.1), Classification()).loss(logits, targets)
    torch.testing.assert_close(loss, nn.CrossEntropyLoss(label_smoothing=0.1)(logits, targets))
    smooth = 0.9 * nn.functional.one_hot(targets, 4) + 0.1 / 4
    torch.testing.assert_close(loss, -(smooth * logits.log_softmax(1)).sum(1).mean())
    plain = Classification()
    assert criterion_of(TrainingSection(), plain) is plain
