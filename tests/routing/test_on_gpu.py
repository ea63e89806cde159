"""The same answers on a GPU as on the CPU, for every family. Without a GPU the CPU stands in: the tests still run."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from routing.data import Batch, batches
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.evaluation.tasks import task_of
from routing.models import build_model
from routing.models.base import VisionModel
from routing.runner import run
from routing.training.checkpoint import Progress, restore_checkpoint, save_checkpoint
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import make_schedule
from routing.training.seeding import pick_device, prepare_process
from tests.families import BATCH, FAMILIES, VIT, family, loaded

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NEAR: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4}
"""Sums in another order; products are in fp32 on both."""


@pytest.fixture(autouse=True)
def _whole_fp32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def both(name: str) -> tuple[VisionModel, VisionModel, Batch, Batch]:
    """Return a family's model in eval mode and one batch, on the CPU and on the device."""
    prepare_process(0, 1)
    config = family(FAMILIES[name])
    data = loaded(config.dataset)
    model = build_model(config.model, data.info).eval()
    splits = data["val"], data["val"].to(DEVICE)
    here, there = (next(batches(split, data.info, BATCH, facts=model.needs)) for split in splits)
    return model, copy.deepcopy(model).to(DEVICE), here, there


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_predictions_and_the_same_multiply_adds(name: str) -> None:
    model, moved, here, there = both(name)
    expected, found = model(here.images, **here.facts), moved(there.images, **there.facts)
    torch.testing.assert_close(found.prediction.cpu(), expected.prediction, **NEAR)
    counts = [measure(m, b.images, **b.facts).executed_per_image.tolist() for m, b in ((model, here), (moved, there))]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ["learnable_threshold", "top_k", "random", "attention pooling", "sparse training"])
def test_conditional_inference_is_the_masked_form(name: str) -> None:
    _, model, _, batch = both(name)
    assert model.routed is not None
    with torch.no_grad():
        conditional = model(batch.images, **batch.facts)
    encoded = model.routed.encode(batch.images, **batch.facts)
    masked = model.routed.train_form(encoded, model.routed.decide(model.routed.evidence(encoded)))
    torch.testing.assert_close(masked.prediction, conditional.prediction, **NEAR)


def test_a_training_goes_on_on_the_other_device_with_its_random_state(tmp_path: Path) -> None:
    config = family({**VIT, "model.dropout": 0.2})
    data = loaded(config.dataset)
    prepare_process(0, 1)
    model = build_model(config.model, data.info)
    optimizer = make_optimizer(model, config.training)
    _train(config, model, optimizer, torch.device("cpu"))
    save_checkpoint(tmp_path, "one", model, optimizer, Progress(1, []))
    drawn = torch.rand(3)
    moved = build_model(config.model, data.info).to(DEVICE)
    again = make_optimizer(moved, config.training)
    assert restore_checkpoint(tmp_path, "one", moved, again) is not None
    torch.testing.assert_close(torch.rand(3), drawn, rtol=0, atol=0)
    for key, value in moved.state_dict().items():
        torch.testing.assert_close(value.cpu(), model.state_dict()[key], rtol=0, atol=0)
    _train(config, moved, again, DEVICE)
    save_checkpoint(tmp_path, "one", moved, again, Progress(2, []))
    on_device = torch.rand(3, device=DEVICE)
    assert restore_checkpoint(tmp_path, "one", moved, again) is not None
    torch.testing.assert_close(torch.rand(3, device=DEVICE), on_device, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["learnable_threshold", "routed_conv", "vit", "hyperiqa"])
def test_a_training_in_bf16_gives_numbers(name: str) -> None:
    config = family({**FAMILIES[name], "precision": "bf16", "device": DEVICE.type})
    assert run(config).history[0]["train_loss"] < 10


def test_a_device_that_is_not_there_is_refused() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(InputError, match=re.escape(f"device 'cuda:{count}': this machine has {count} CUDA devices")):
        pick_device(f"cuda:{count}")


def _train(config: Any, model: VisionModel, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    data = loaded(config.dataset)
    task = task_of(data.info.task)
    turn = make_schedule(config.training, model, task).turn([])
    assert turn is not None
    autocast = torch.autocast(device.type, enabled=False)
    split = data["train"].to(device)
    train_epoch(model, split, data.info, task, optimizer, config.training, turn=turn, seed=0, autocast=autocast)
