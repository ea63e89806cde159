"""What is trained on: smoothing and class weights against torch, balanced drawing against counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from routing.config.training import TrainingSection
from routing.data import Split
from routing.evaluation.tasks import Classification
from routing.training.criterion import balanced_weights, criterion_of, training_order

LOGITS: Tensor = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 3, 1, 1, 2, 0])


def split(targets: Tensor) -> Split:
    return Split(torch.zeros(len(targets), 1, 2, 2, dtype=torch.uint8), targets)


def loss(**keys: object) -> Tensor:
    settings = TrainingSection(**keys)  # type: ignore[arg-type]
    return criterion_of(settings, Classification(), split(TARGETS), 4).loss(LOGITS, TARGETS)


def test_label_smoothing_is_that_of_torch_and_of_its_definition() -> None:
    torch.testing.assert_close(loss(label_smoothing=0.1), nn.CrossEntropyLoss(label_smoothing=0.1)(LOGITS, TARGETS))
    smooth = 0.9 * nn.functional.one_hot(TARGETS, 4) + 0.1 / 4
    torch.testing.assert_close(loss(label_smoothing=0.1), -(smooth * LOGITS.log_softmax(1)).sum(1).mean())
    plain = Classification()
    assert criterion_of(TrainingSection(), plain, split(TARGETS), 4) is plain


def test_class_weights_are_by_rarity_and_one_on_average() -> None:
    weights = balanced_weights(TARGETS, 5)  # counts 2, 2, 1, 1, 0
    assert weights.tolist() == [0.75, 0.75, 1.5, 1.5, 0.0]
    assert float(weights[TARGETS].mean()) == 1
    each = nn.functional.cross_entropy(LOGITS, TARGETS, weights[:4], reduction="none")
    torch.testing.assert_close(loss(class_balance="weights"), each.mean())
    smooth = nn.CrossEntropyLoss(weights[:4], label_smoothing=0.1, reduction="sum")(LOGITS, TARGETS) / 6
    torch.testing.assert_close(loss(class_balance="weights", label_smoothing=0.1), smooth)


def test_balanced_drawing_makes_rare_classes_as_frequent() -> None:
    targets = torch.tensor([0] * 900 + [2] * 90 + [5] * 10)  # classes 1, 3 and 4 have no images
    settings = TrainingSection(class_balance="sampling")
    orders = [training_order(settings, 0, epoch, split(targets)) for epoch in (1, 2, 1)]
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    counts = torch.bincount(targets[torch.cat(orders[:2])], minlength=6)
    assert counts[[1, 3, 4]].sum() == 0
    for count in counts[[0, 2, 5]].tolist():
        assert count == pytest.approx(2000 / 3, abs=4 * (2000 * 2 / 9) ** 0.5)  # four standard deviations
    assert len(orders[0][targets[orders[0]] == 0].unique()) > 200  # images of the class, not one again and again
    assert sorted(training_order(TrainingSection(), 0, 1, split(targets)).tolist()) == list(range(1000))
    thrice = training_order(TrainingSection(crops_per_image=3), 0, 1, split(targets)).tolist()
    assert sorted(thrice) == sorted([*range(1000)] * 3)
