"""What an epoch says of the training images: the task's metric on the batches it trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from routing.config.run import RunConfig
from routing.evaluation.evaluate import Evaluator
from routing.evaluation.tasks import task_of
from routing.models import build_model
from routing.models.base import CountedPart, ModelOutput, VisionModel
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import make_schedule
from routing.training.seeding import prepare_process

VIT = {"model.name": "vit", "model.width": 8, "model.heads": 2, "model.depth": 1, "model.mlp": 8, "model.dropout": 0}


class Contrast(VisionModel):
    """Says that an image is as good as it is varied."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1)

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict quality (B,)."""
        return ModelOutput(self.head(images.std(dim=(1, 2, 3))[:, None])[:, 0])

    def counted_parts(self) -> dict[str, CountedPart]:
        """Nothing but what ``closed_form`` says."""
        return {}

    def closed_form(self, units_executed: dict[str, Tensor], batch_size: int) -> Tensor:
        """One product per image."""
        return torch.ones(batch_size, dtype=torch.int64)


@pytest.mark.parametrize("quality", [False, True])
def test_a_model_that_does_not_move_has_the_metric_of_its_training_split(
    quality: bool, tiny: dict[str, Any], tiny_quality: dict[str, Any]
) -> None:
    """At a rate of nearly nothing, without dropout: the same number as evaluation finds on the same images."""
    keys = tiny_quality if quality else {**tiny, **VIT}
    config = RunConfig.from_dict({**keys, "training.learning_rate": 1e-12, "training.batch_size": 24})
    prepare_process(0, 1)
    data = config.dataset.load()
    model, task = Contrast() if quality else build_model(config.model, data.info), task_of(data.info.task)
    turn = make_schedule(config.training, model, task).turn([])
    assert turn is not None
    autocast = torch.autocast("cpu", enabled=False)
    optimizer = make_optimizer(model, config.training)
    row = train_epoch(
        model, data["train"], data.info, task, optimizer, config.training, turn=turn, seed=0, autocast=autocast
    )
    found = Evaluator(data["train"], data.info, task, 24, autocast).run(model).metrics[task.metric]
    assert row[f"train_{task.metric}"] == pytest.approx(found, abs=1e-6)
    assert next(iter(row)) == "train_loss"
