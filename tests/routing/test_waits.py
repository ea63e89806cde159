"""How often the host waits for a GPU: never inside a training step, and once per batch of an evaluation at most.

Counted by ``torch.cuda.set_sync_debug_mode`` where there is a GPU, else on a pretended one.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from routing.config.run import RunConfig
from routing.data import DataInfo, Split
from routing.evaluation.evaluate import Evaluator
from routing.evaluation.tasks import task_of
from routing.models import build_model
from routing.models.base import VisionModel
from routing.models.patch import routed
from routing.models.units import rows_of
from routing.training.averaging import WeightAverage
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import make_schedule
from routing.training.seeding import prepare_process
from tests.families import BATCH, FAMILIES, VIT, family, loaded
from tests.pretended_gpu import PretendedGpu

SETTINGS: dict[str, dict[str, Any]] = {
    "crop and flip": {"training.augment.crop": 2, "training.augment.flip": True},
    "mixup and cutmix": {"training.augment.mixup": 0.4, "training.augment.cutmix": 1.0},
    "weights": {"training.class_balance": "weights", "training.label_smoothing": 0.1},
    "sampling": {"training.class_balance": "sampling"},
    "average, clipped, sgd": {"training.ema_decay": 0.9, "training.grad_clip": 1.0, "training.optimizer": "sgd"},
    "fewer tokens": {
        "training.reduce_tokens": True,
        "training.keep_rates": [0.5, 0.9],
        "training.distil.weight": 1.0,
        "training.distil.tokens": True,
        "model.pruning.method": "importance_diversity",
        "model.pruning.k_anchors": 2,
        "model.pruning.top_m": 4,
    },
    "several parts": {"training.gradient_accumulation_steps": 2},
}
ALSO_ALLOWED = {"routed_conv": 1}
"""Waits in a training step: the batch norm of a conv expert needs exactly the rows that a threshold routed."""
HEADS = {"early_exit": 2}
"""Waits per batch of a family above one: each early head decides on how many images the next stage runs."""


def training(config: RunConfig, steps: int, send: Callable[[Any], Any]) -> Callable[[], object]:
    """Return an epoch of so many steps; what it needs is on the device already."""
    model, split, info = _prepared(config, steps, send)
    task = task_of(info.task)
    turn = make_schedule(config.training, model, task).turn([])
    assert turn is not None
    optimizer, average = make_optimizer(model, config.training), WeightAverage(model, config.training.ema_decay)
    autocast = torch.autocast("cpu", enabled=False)
    return lambda: train_epoch(
        model, split, info, task, optimizer, config.training, turn=turn, seed=0, autocast=autocast, average=average
    )


def evaluation(config: RunConfig, steps: int, send: Callable[[Any], Any]) -> Callable[[], object]:
    """Return an evaluation of so many batches."""
    model, split, info = _prepared(config, steps, send)
    evaluator = Evaluator(split, info, task_of(info.task), BATCH, torch.autocast("cpu", enabled=False))
    return lambda: evaluator.run(model)


def curve(config: RunConfig, steps: int, send: Callable[[Any], Any]) -> Callable[[], object]:
    """Return an evaluation at three values of the knob."""
    model, split, info = _prepared(config, steps, send)
    evaluator = Evaluator(split, info, task_of(info.task), BATCH, torch.autocast("cpu", enabled=False))
    with torch.no_grad():
        batch = next(evaluator.batches(model.needs))
        facts = {name: [batch.facts[name]] for name in model.needs}
        values = model.eval().knob_values([batch.images], **facts)[:3]
    return lambda: evaluator.along_knob(model, values)


def _prepared(config: RunConfig, steps: int, send: Callable[[Any], Any]) -> tuple[VisionModel, Split, DataInfo]:
    prepare_process(0, 1)
    data = loaded(config.dataset)
    split, count = data["train"], steps * BATCH
    extra = {name: send(value[:count]) for name, value in split.extra.items()}
    there = Split(send(split.images[:count]), send(split.targets[:count]), extra)
    return send(build_model(config.model, data.info)), there, data.info


def waits_per_batch(make: Callable[..., Callable[[], object]], config: RunConfig) -> Counter[str]:
    """Return the waits that one more batch adds, and where they are."""
    count = _on_a_gpu if torch.cuda.is_available() else _on_a_pretended_one
    return count(make, config, 2) - count(make, config, 1)


def _on_a_gpu(make: Callable[..., Callable[[], object]], config: RunConfig, steps: int) -> Counter[str]:
    run = make(config, steps, lambda value: value.to("cuda"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message))


def _on_a_pretended_one(make: Callable[..., Callable[[], object]], config: RunConfig, steps: int) -> Counter[str]:
    with PretendedGpu() as gpu:
        run = make(config, steps, gpu.send)
        gpu.waits.clear()
        run()
    return Counter(gpu.waits)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILIES)
def test_no_wait_inside_a_training_step(name: str) -> None:
    waits = waits_per_batch(training, family(FAMILIES[name]))
    assert waits.total() == ALSO_ALLOWED.get(name, 0), waits


@pytest.mark.gpu
@pytest.mark.parametrize("case", SETTINGS)
def test_no_wait_for_how_a_model_is_trained(case: str) -> None:
    assert not waits_per_batch(training, family({**VIT, **SETTINGS[case]}))


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILIES)
def test_one_wait_per_batch_of_an_evaluation(name: str) -> None:
    waits = waits_per_batch(evaluation, family(FAMILIES[name]))
    assert waits.total() <= HEADS.get(name, 1), waits


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["learnable_threshold", "top_k", "early_exit", "routed_vit", "aacn", "hyperiqa"])
def test_one_wait_per_batch_for_a_whole_curve(name: str) -> None:
    waits = waits_per_batch(curve, family(FAMILIES[name]))
    assert waits.total() <= 1, waits


@pytest.mark.gpu
def test_one_wait_per_batch_and_setting_of_token_pruning() -> None:
    """Its choice says whether the attention was a number before anything is made of it."""
    assert waits_per_batch(curve, family(VIT)).total() == 3


def test_a_step_on_all_rows_is_too_much_for_a_big_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the host waits for the count of routed rows, once."""
    monkeypatch.setattr(routed, "MASKED_BELOW", 0)
    waits = waits_per_batch(training, family({}))
    assert waits.total() == 1, waits


def test_rows_of_a_gpu_are_those_of_a_cpu() -> None:
    hard = torch.rand(100, generator=torch.Generator().manual_seed(0)) < 0.3
    for known in (None, int(hard.sum())):
        with PretendedGpu() as gpu:
            found = rows_of(gpu.send(hard), known)
        assert len(gpu.waits) == (known is None)
        assert all(torch.equal(a.as_subclass(torch.Tensor), b) for a, b in zip(found, rows_of(hard), strict=True))
