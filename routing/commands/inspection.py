"""What a trained run looks like from inside, as plain arrays: for figures, which compute nothing.

Shapes: S samples, M images of the split, N = g * g patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from routing.config.run import RunConfig
from routing.data import Batch
from routing.evaluation.evaluate import Evaluator
from routing.files.record import read_history
from routing.models.base import ModelOutput
from routing.models.units import RoutedModel
from routing.runner import make_evaluator
from routing.saved import load
from routing.training.pictures import read_pictures
from routing.training.seeding import pick_device


@dataclass(frozen=True)
class PatchSamples:
    """The first images of a split and the model's decisions on their patches.

    images: uint8 (S, C, H, W); targets, predictions: class indices (S,).
    scores: attention scores, raw (S, N); routed: bool (S, N), the patch took the big branch.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    predictions: NDArray[np.int64]
    scores: NDArray[np.float32]
    routed: NDArray[np.bool_]
    grid: int


@dataclass(frozen=True)
class Inspection:
    """A run for its figures.

    title: model, router, data, seed. history: a row per epoch.
    samples: None where the model has no patches. routing_ratio: of every image (M,), None where nothing is routed.
    target_ratio, temperature: as configured, None where they do not apply.
    pictures: what was seen of four images while it trained, by epoch: ``images`` uint8 (S, C, H, W), ``attention``
        (S, g, g), and of a routed model ``decided`` bool (S, g, g).
    """

    title: str
    history: list[dict[str, float]]
    class_names: tuple[str, ...]
    samples: PatchSamples | None
    routing_ratio: NDArray[np.float64] | None
    target_ratio: float | None
    temperature: float | None
    pictures: dict[int, dict[str, NDArray[Any]]] = field(default_factory=dict)


def inspect_run(folder: Path, num_samples: int = 8, split: str = "val") -> Inspection:
    """Look into a finished run; its samples are the first images of the split, not chosen ones."""
    saved = load(folder)
    config, model = saved.config, saved.model.routed
    samples, ratio = None, None
    if model is not None:
        evaluator = make_evaluator(config, config.dataset.load(), split, pick_device(config.device))
        samples = _samples(model, evaluator, num_samples)
        ratio = evaluator.run(model).routing_ratio
    return Inspection(
        title=_title(config),
        history=read_history(folder),
        class_names=saved.info.class_names,
        samples=samples,
        routing_ratio=None if ratio is None else ratio.double().cpu().numpy(),
        target_ratio=None if model is None else model.target_ratio,
        temperature=None if model is None else model.temperature,
        pictures=read_pictures(folder),
    )


@torch.no_grad()
def _samples(model: RoutedModel[Any], evaluator: Evaluator, count: int) -> PatchSamples:
    seen: list[tuple[Batch, torch.Tensor, torch.Tensor, ModelOutput]] = []
    with evaluator.autocast:
        for batch in _enough(evaluator.batches(model.needs), count):
            encoded = model.encode(batch.images, **batch.facts)
            decision = model.decide(model.evidence(encoded))
            seen.append((batch, encoded.scores_BN, decision.hard_BN, model.dispatch(encoded, decision)))
    chosen = slice(count)
    targets = torch.cat([batch.targets for batch, *_ in seen])[chosen]
    predictions = torch.cat([output.prediction.argmax(1) for *_, output in seen])[chosen]
    return PatchSamples(
        images=evaluator.split.images[: len(targets)].cpu().numpy(),
        targets=targets.cpu().numpy(),
        predictions=predictions.cpu().numpy(),
        scores=torch.cat([scores for _, scores, *_ in seen])[chosen].float().cpu().numpy(),
        routed=torch.cat([hard for _, _, hard, _ in seen])[chosen].cpu().numpy(),
        grid=model.grid.grid,
    )


def _enough(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    first = next(batches)
    yield first
    yield from islice(batches, max(0, -(-count // len(first.targets)) - 1))


def _title(config: RunConfig) -> str:
    mode = config.dotted().get("model.router.mode")
    model = f"{config.model.name} ({mode})" if mode else config.model.name
    return f"{model} on {config.dataset.name}, seed {config.seed}"
