"""Saved runs: load one back, and evaluate it on a split it was not selected on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from routing.config import RunConfig
from routing.data import DataInfo, ImageData, Split, normalise
from routing.errors import InputError, choices
from routing.evaluation.operating_points import operating_points
from routing.models import build_model
from routing.models.base import ModelOutput, VisionModel
from routing.record import BEST_FILE, CONFIG_FILE, METRICS_FILE, MODEL_FILE, OperatingPoint, write_json
from routing.run import make_evaluator
from routing.training.checkpoint import load_weights
from routing.training.seeding import pick_device, prepare_process

Weights = Literal["last", "best"]


@dataclass(frozen=True)
class SavedRun:
    """A trained model, ready to predict, with its configuration and what it must know of its data."""

    config: RunConfig
    info: DataInfo
    model: VisionModel

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 images (B, C, H, W) of ``info.input_size`` as in training."""
        return normalise(images, self.info)

    @torch.no_grad()
    def predict(self, images: torch.Tensor) -> ModelOutput:
        """Predict from uint8 images (B, C, H, W)."""
        return self.model(self.preprocess(images))


def read_config(folder: Path) -> RunConfig:
    """Return the configuration saved in a run's folder; a folder without one is an ``InputError``."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{folder}: not a run: it has no {CONFIG_FILE}")
    return RunConfig.from_yaml(folder / CONFIG_FILE)


def load(folder: str | Path, weights: Weights = "last") -> SavedRun:
    """Load a run's folder (``runs/x``, ``RESULTS/trials/3``, ``RESULTS/best/knee``) with its trained weights.

    Args:
        weights: after the last epoch, as every number of the run says, or after the one with the best validation.

    Raises:
        InputError: no run there, no weights, or weights of another model.
    """
    folder = Path(folder)
    config = read_config(folder)
    info = config.dataset.info()
    return _with_weights(config, info, folder, weights)


def _with_weights(config: RunConfig, info: DataInfo, folder: Path, weights: Weights) -> SavedRun:
    file = folder / (MODEL_FILE if weights == "last" else BEST_FILE)
    if not file.is_file():
        why = "it was not kept" if (folder / METRICS_FILE).is_file() else "the run has not finished"
        raise InputError(f"{folder}: no {file.name}: {why}")
    model = build_model(config.model, info)
    load_weights(model, file)
    if config.evaluation.knob_value is not None:
        model.set_knob(config.evaluation.knob_value)
    model.to(pick_device(config.device)).eval()
    return SavedRun(config, info, model)


def evaluate_saved(
    folder: str | Path, split: str = "val", *, curve: bool = False, weights: Weights = "last"
) -> list[OperatingPoint]:
    """Evaluate a saved run on ``val`` or ``test``: its default operating point first, then the others if asked.

    The metrics of the points are named after the split: ``test_accuracy``.
    """
    folder = Path(folder)
    config = read_config(folder)
    prepare_process(config.seed, config.threads)
    data = config.dataset.load()
    _check_split(data, split, config)
    saved = _with_weights(config, data.info, folder, weights)
    evaluator = make_evaluator(config, data, split, pick_device(config.device))
    default = evaluator.run(saved.model)
    return operating_points(saved.model, evaluator, default, curve=curve, split=split)


def save_evaluation(folder: Path, split: str, points: list[OperatingPoint]) -> Path:
    """Write the points of one evaluation to ``evaluation_<split>.json`` in the run's folder; return its path."""
    path = folder / f"evaluation_{split}.json"
    write_json(path, {"split": split, "points": [point.row() for point in points]})
    return path


def _check_split(data: ImageData, split: str, config: RunConfig) -> None:
    found: dict[str, Split] = data.splits
    if split not in found:
        raise InputError(f"data set '{config.dataset.name}' has no split '{split}' (valid: {choices(sorted(found))})")
