"""Pictures while training: attention and decisions on four fixed images, so that one sees a router learn.

Kept as arrays, ``RUN/pictures/0005.safetensors`` of epoch 5, which figures and TensorBoard draw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from routing.config.run import RunConfig
from routing.errors import InputError
from routing.evaluation.evaluate import Evaluator
from routing.files.results_folder import PICTURES_FOLDER
from routing.files.tensors import load_tensors, save_tensors
from routing.models.base import VisionModel
from routing.training.events import EventLog

COUNT = 4
"""Images: the first of the validation split, not chosen ones."""


class Pictures:
    """Takes pictures of a model at every ``training.pictures_every``-th epoch; without that, or a folder, never.

    Raises:
        InputError: the model has no attention that could be drawn.
    """

    def __init__(self, folder: Path | None, config: RunConfig, model: VisionModel, evaluator: Evaluator) -> None:
        self.folder, self.every = folder, config.training.pictures_every
        self.model, self.evaluator = model, evaluator
        if self.every is not None:
            try:
                self._seen()
            except InputError as error:
                raise InputError(f"training.pictures_every {self.every}: {error}") from None

    def missing(self, epochs: int) -> str:
        """Return a line where a training of this many epochs leaves no pictures, though some are asked for; else ""."""
        if self.folder is None or self.every is None or epochs >= self.every:
            return ""
        return f"training.pictures_every {self.every}: no pictures, since {epochs} epochs are trained here"

    def take(self, epoch: int, events: EventLog) -> None:
        """Save the pictures of this epoch, and add them to TensorBoard."""
        if self.folder is None or self.every is None or epoch % self.every:
            return
        seen = self._seen()
        save_tensors(self.folder / PICTURES_FOLDER / f"{epoch:04d}.safetensors", seen, {"epoch": str(epoch)})
        events.add_images("pictures/attention", _side_by_side(seen), epoch)

    @torch.no_grad()
    def _seen(self) -> dict[str, Tensor]:
        """Return images uint8 (S, C, H, W), attention (S, g, g) of the last layer, and decided (S, g, g) if any."""
        was_training = self.model.training
        self.model.eval()
        try:
            with self.evaluator.autocast:
                batch = next(self.evaluator.batches(self.model.needs))
                facts = {name: values[:COUNT] for name, values in batch.facts.items()}
                layer = self.model.attention_layers(batch.images[:COUNT])[-1]
                decided = self.model(batch.images[:COUNT], **facts).decided
        finally:
            self.model.train(was_training)
        seen = {
            "images": self.evaluator.split.images[: len(layer.maps)].cpu(),
            "attention": layer.patches_BHN().float().mean(dim=1).unflatten(1, layer.grid).cpu(),
        }
        if decided is not None:
            seen["decided"] = decided.reshape_as(seen["attention"]).cpu()
        return seen


def read_pictures(folder: Path) -> dict[int, dict[str, NDArray[np.generic]]]:
    """Return the pictures of every epoch that some were taken of, as arrays by name; none where none were."""
    return {
        int(path.stem): {name: value.numpy() for name, value in load_tensors(path)[0].items()}
        for path in sorted((folder / PICTURES_FOLDER).glob("*.safetensors"))
    }


def _side_by_side(seen: dict[str, Tensor]) -> NDArray[np.uint8]:
    """Return one image (H, S * W, 3): attention over the images; patches that were not decided for are half as bright.

    Colours span 0 to the highest attention of these images.
    """
    import matplotlib  # only here: without pictures no training waits for it

    height, width = seen["images"].shape[2:]
    heat = seen["attention"] / seen["attention"].amax().clamp(min=1e-12)
    coloured = matplotlib.colormaps["viridis"](_grown(heat, height, width).numpy())[..., :3]
    pixels = seen["images"].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy() / 255
    mixed = 0.5 * pixels + 0.5 * coloured
    if "decided" in seen:
        mixed *= 0.5 + 0.5 * _grown(seen["decided"].float(), height, width).numpy()[..., None]
    return np.concatenate(list((255 * mixed).astype(np.uint8)), axis=1)


def _grown(cells: Tensor, height: int, width: int) -> Tensor:
    return torch.nn.functional.interpolate(cells[:, None], (height, width), mode="nearest")[:, 0]
