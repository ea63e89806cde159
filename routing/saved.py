"""Saved runs: load one back, and evaluate it on a split it was not selected on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from routing.config.run import RunConfig
from routing.data import Batch, DataInfo, ImageData, Split, normalise
from routing.data.given import as_pixels
from routing.errors import InputError, choices
from routing.evaluation.executed import counted
from routing.evaluation.operating_points import knob_values, operating_points
from routing.evaluation.predictions import Predictions, predictions
from routing.files.atomic import write_json
from routing.files.links import check_links
from routing.files.record import OperatingPoint
from routing.files.results_folder import BEST_FILE, CONFIG_FILE, METRICS_FILE, MODEL_FILE, TRIALS_FOLDER
from routing.files.tensors import DATA, load_weights, read_metadata
from routing.models.base import ModelOutput, VisionModel
from routing.models.kept_library import build_kept
from routing.runner import autocast, make_evaluator
from routing.training.seeding import pick_device, prepare_process

Weights = Literal["last", "best"]


@dataclass(frozen=True)
class SavedRun:
    """A trained model, ready to predict, with its configuration and the description of its data."""

    config: RunConfig
    info: DataInfo
    model: VisionModel

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 images (B, C, H, W) of ``info.input_size`` as in training."""
        return normalise(images, self.info)

    def predict(self, images: Any, **facts: torch.Tensor) -> Predictions:
        """Predict from images as they are, on the model's device and in the precision of the run.

        Args:
            images: a path, a PIL image, a uint8 array (H, W, C), a list of them, or a uint8 tensor (B, C, H, W). All
                but the tensor are resized as in training.
            facts: what the model needs beside the pixels (``box`` (B, 4) of the router mode ``oracle``).

        Raises:
            InputError: floats, other channels, a size that would have to be guessed, or a fact is missing.
        """
        pixels = as_pixels(images, self.info, self.config.dataset)
        if self.model.has_closed_form:
            return predictions(self.model, self.output(pixels, **facts), self.info)
        batch = Batch(pixels, *[torch.arange(len(pixels))] * 2)
        output = next(counted(self.model, batch, lambda batch: [self.output(batch.images)], 1))
        return predictions(self.model, output, self.info)

    @torch.no_grad()
    def output(self, images: torch.Tensor, **facts: torch.Tensor) -> ModelOutput:
        """Return all that the model says of uint8 images (B, C, H, W) of its size; see ``predict``."""
        missing = [name for name in self.model.needs if name not in facts]
        if missing:
            raise InputError(f"this model needs the {choices(missing)} of every image beside its pixels")
        device = next(self.model.parameters()).device
        with autocast(self.config, device):
            return self.model(
                self.preprocess(images.to(device)), **{name: facts[name].to(device) for name in self.model.needs}
            )


def read_config(folder: Path) -> RunConfig:
    """Return the configuration saved in a run's folder; a folder without one is an ``InputError``."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    check_links(folder)
    if not (folder / CONFIG_FILE).is_file():
        hint = "; the runs of a sweep are in its trials/<number>" if (folder / TRIALS_FOLDER).is_dir() else ""
        raise InputError(f"{folder}: not a run: it has no {CONFIG_FILE}{hint}")
    return RunConfig.from_yaml(folder / CONFIG_FILE)


def load(folder: str | Path, weights: Weights = "last") -> SavedRun:
    """Load a run's folder (``runs/x``, ``RESULTS/trials/3``, ``RESULTS/best/knee``) with its trained weights.

    Args:
        weights: after the last epoch, which all numbers of the run refer to, or after the one with the best validation.

    Raises:
        InputError: no run there, no weights, or weights of another model. The training data need not be there.
    """
    config, file = read_config(Path(folder)), _weights_file(Path(folder), weights)
    return _with_weights(config, _info_of(file) or config.dataset.info(), file)


def _weights_file(folder: Path, weights: Weights) -> Path:
    file = folder / (MODEL_FILE if weights == "last" else BEST_FILE)
    if not file.is_file():
        why = "it was not kept" if (folder / METRICS_FILE).is_file() else "the run has not finished"
        raise InputError(f"{folder}: no {file.name}: {why}")
    return file


def _info_of(file: Path) -> DataInfo | None:
    """Return the data description stored with the weights, or None: the data need not be on this machine."""
    text = read_metadata(file).get(DATA)
    return None if text is None else DataInfo.from_json(text)


def _with_weights(config: RunConfig, info: DataInfo, file: Path) -> SavedRun:
    model = build_kept(config.model, info, file.parent)
    load_weights(model, file)
    if config.evaluation.knob_value is not None:
        model.set_knob(config.evaluation.knob_value)
    model.to(pick_device(config.device)).eval()
    return SavedRun(config, info, model)


def evaluate_saved(
    folder: str | Path, split: str = "val", *, curve: bool = False, weights: Weights = "last"
) -> list[OperatingPoint]:
    """Evaluate a saved run on ``val`` or ``test``: its default operating point first, then the others if asked.

    The metrics of the points are named after the split: ``test_accuracy``. Knob values are those of the validation
    split on either.
    """
    folder = Path(folder)
    config = read_config(folder)
    prepare_process(config.seed, config.threads)
    data = config.dataset.load()
    _check_split(data, split, config)
    file = _weights_file(folder, weights)
    _check_classes(_info_of(file), data.info, folder)
    saved = _with_weights(config, data.info, file)
    device = pick_device(config.device)
    values = knob_values(saved.model, make_evaluator(config, data, "val", device)) if curve else []
    evaluator = make_evaluator(config, data, split, device)
    return operating_points(saved.model, evaluator, evaluator.run(saved.model), values, split)


def save_evaluation(folder: Path, split: str, points: list[OperatingPoint], weights: Weights = "last") -> Path:
    """Write the points of one evaluation into the run's folder; return the file.

    It is ``evaluation_<split>.json``, or ``evaluation_<split>_best.json`` for the best weights. No study reads it.
    """
    path = folder / f"evaluation_{split}{'' if weights == 'last' else f'_{weights}'}.json"
    write_json(path, {"split": split, "weights": weights, "points": [point.row() for point in points]})
    return path


def _check_classes(trained: DataInfo | None, found: DataInfo, folder: Path) -> None:
    """Outputs are numbers: with other classes, or the same ones in another order, they would mean something else."""
    if trained is not None and trained.class_names != found.class_names:
        raise InputError(
            f"{folder}: trained on the classes {choices(trained.class_names)}; the data set now has "
            f"{choices(found.class_names)}"
        )


def _check_split(data: ImageData, split: str, config: RunConfig) -> None:
    found: dict[str, Split] = data.splits
    if split not in found:
        raise InputError(f"data set '{config.dataset.name}' has no split '{split}' (valid: {choices(sorted(found))})")


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart: ``A-seed0`` and ``B-seed0``.

    Raises:
        InputError: the same folder is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise InputError("the same folder is given twice")
    names: list[str] = []
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["-".join(part.strip("/") for part in path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names
