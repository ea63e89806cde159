"""What a trained model says of some images, in words: labels, probabilities, multiply-adds, decisions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from routing.data import DataInfo
from routing.models.base import ModelOutput, VisionModel


@dataclass(frozen=True)
class Predictions:
    """Predictions for images (B), on the CPU but for ``prediction``.

    prediction: logits (B, classes) as the model returns them, or quality (B,).
    probabilities: of every class (B, classes); None for quality.
    labels: the most probable class of every image by name; for quality, the value as text.
    multiply_adds: executed for every image, int64 (B,).
    decisions: of a routed model, which units took the expensive path, bool (B, g, g), row by row of the image; of early
        exits, the exit that was taken, int (B,), from 0; None of a model that decides nothing.
    """

    prediction: Tensor
    probabilities: Tensor | None
    labels: list[str]
    multiply_adds: Tensor
    decisions: Tensor | None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Predictions({', '.join(self.labels[:8])}{', ...' if len(self) > 8 else ''})"


@torch.no_grad()
def predictions(model: VisionModel, output: ModelOutput, info: DataInfo) -> Predictions:
    """Return the output of a model on a batch in words."""
    prediction = output.prediction
    if info.task == "classification":
        probabilities = prediction.float().softmax(dim=1).cpu()
        labels = [info.class_name(index) for index in probabilities.argmax(dim=1).tolist()]
    else:
        probabilities, labels = None, [f"{value:.4g}" for value in prediction.tolist()]
    cost = model.closed_form(output.units_executed, len(prediction))
    return Predictions(prediction, probabilities, labels, cost, _decisions(model, output))


def _decisions(model: VisionModel, output: ModelOutput) -> Tensor | None:
    if model.exiting is not None:
        heads = [*(f"exit{stage}" for stage in model.exiting.exits), "head"]
        return torch.stack([output.units_executed[head].cpu() for head in heads]).sum(0) - 1
    if model.routed is None or output.decided is None:
        return None
    side = model.routed.grid.grid
    return output.decided.reshape(len(output.decided), side, side).cpu()
