"""What an attention analysis looks at: a saved model without pruning, and images of a split or of files.

Shapes: M images, N patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from analysis.attention.reading import read_attention, read_inner_attention
from routing.config.run import RunConfig
from routing.data import DataInfo, Split, normalise
from routing.data.decode import DamagedImage, read_rgb
from routing.errors import InputError, choices, nearest
from routing.models.attention import AttentionLayer
from routing.models.base import VisionModel
from routing.models.kept_library import build_kept
from routing.models.vit.token_pruning import Pruning
from routing.saved import SavedRun, load, read_config
from routing.training.seeding import pick_device, prepare_process

BATCH = 32


@dataclass(frozen=True)
class Chosen:
    """Which images are looked at.

    samples: those that are drawn: how many, or their numbers in the split.
    num_images: those that the statistics are of, drawn from the split by a fixed seed, the samples among them.
    classes: names (or numbers) of classes that the images must have; empty: all.
    files: image files to look at instead of a split; their classes are not known.
    """

    split: str = "val"
    samples: int | Sequence[int] = 8
    num_images: int = 256
    classes: Sequence[str] = ()
    files: Sequence[Path] = ()


@dataclass(frozen=True)
class Subject:
    """A model without pruning, the setting to prune it by, and the images (M,); the first ``drawn`` are drawn.

    ``targets`` are the model's own predictions where the images have no labels (``labelled`` False).
    """

    run: SavedRun
    pixels: Tensor
    targets: Tensor
    labelled: bool
    drawn: int
    where: str
    title: str
    pruning: Pruning | None

    @property
    def model(self) -> VisionModel:
        """The model."""
        return self.run.model

    def images(self) -> Iterator[Tensor]:
        """Yield normalised batches."""
        for pixels in self.pixels.split(BATCH):
            yield self.run.preprocess(pixels)

    def attention(self, images: Tensor, pruning: Pruning | None = None) -> list[AttentionLayer]:
        """Return the attention that the prediction uses, on normalised images."""
        return read_attention(self.model, images, pruning)

    def inner_attention(self, images: Tensor) -> list[AttentionLayer]:
        """Return the inner attention, which only contributes to that map."""
        return read_inner_attention(self.model, images)

    def predictions(self, images: Tensor, pruning: Pruning | None = None) -> Tensor:
        """Return the predicted class of normalised images (M, C, S, S), with or without pruning."""
        return predicted_classes(self.model, images, pruning)


@torch.no_grad()
def predicted_classes(model: VisionModel, images: Tensor, pruning: Pruning | None = None) -> Tensor:
    """Return the predicted class of normalised images (M, C, S, S), with or without pruning."""
    device, prunable = next(model.parameters()).device, model.prunable
    with nullcontext() if prunable is None else prunable.under(pruning):
        return torch.cat([model(part.to(device)).prediction.argmax(dim=1).cpu() for part in images.split(BATCH)])


def subject_of(folder: Path, chosen: Chosen, pruning: str | None, random_weights: bool, device: str) -> Subject:
    """Load a run and the images to look at."""
    saved = _untrained(folder) if random_weights else load(folder)
    config = saved.config
    prepare_process(config.seed, config.threads)
    if saved.info.task != "classification":
        raise InputError(f"{folder}: attention analysis needs a classification run, not '{saved.info.task}'")
    if saved.model.needs:
        raise InputError(f"{folder}: this model needs the {choices(saved.model.needs)} of every image, not only pixels")
    setting = _setting(saved.model, pruning)
    saved.model.to(pick_device(device)).eval()
    title = f"{config.model.name} on {config.dataset.name}, seed {config.seed}"
    title += ", RANDOM WEIGHTS" if random_weights else ""
    if chosen.files:
        pixels = torch.stack([_read(Path(file), saved.info) for file in chosen.files])
        own = predicted_classes(saved.model, normalise(pixels, saved.info))
        return Subject(saved, pixels, own, False, len(pixels), "files", title, setting)
    split, drawn = _of_split(config, saved.info, chosen)
    where = f"the {chosen.split} split of {config.dataset.name}"
    where += f", class {choices(chosen.classes)}" if chosen.classes else ""
    return Subject(saved, split.images[:], split.targets, True, drawn, where, title, setting)


def _of_split(config: RunConfig, info: DataInfo, chosen: Chosen) -> tuple[Split, int]:
    data = config.dataset.load()
    if chosen.split not in data.splits:
        raise InputError(
            f"data set '{config.dataset.name}' has no split '{chosen.split}' (valid: {choices(data.splits)})"
        )
    whole = data[chosen.split]
    able = torch.arange(len(whole))
    if chosen.classes:
        wanted = torch.tensor([_class_index(info, name) for name in chosen.classes])
        able = able[torch.isin(whole.targets, wanted)]
        if not len(able):
            raise InputError(f"the {chosen.split} split has no image of class {choices(chosen.classes)}")
    named = [] if isinstance(chosen.samples, int) else list(chosen.samples)
    for number in named:
        if not 0 <= number < len(whole):
            raise InputError(
                f"sample {number}: the {chosen.split} split has {len(whole)} (valid: 0 to {len(whole) - 1})"
            )
    count = max(chosen.num_images, chosen.samples if isinstance(chosen.samples, int) else len(named))
    order = torch.randperm(len(able), generator=torch.Generator().manual_seed(0))[:count].sort().values
    order = able[order[torch.randperm(len(order), generator=torch.Generator().manual_seed(1))]]
    order = torch.cat([torch.tensor(named, dtype=torch.int64), order[~torch.isin(order, torch.tensor(named))]])
    drawn = min(chosen.samples if isinstance(chosen.samples, int) else len(named), len(order))
    return Split(whole.images[order], whole.targets[order]), drawn


def _class_index(info: DataInfo, name: str) -> int:
    if name in info.class_names:
        return info.class_names.index(name)
    if name.isdigit() and int(name) < info.num_outputs:
        return int(name)
    raise InputError(
        f"--class '{name}': no such class{nearest(name, info.class_names)} "
        f"(valid: {choices(info.class_names or [f'0 to {info.num_outputs - 1}'])})"
    )


def _read(file: Path, info: DataInfo) -> Tensor:
    """Return a file's pixels (C, S, S), uint8: the middle square at the size the model takes."""
    from PIL import Image

    try:
        image = read_rgb(str(file), (0, 0, 0), 8, info.input_size)
    except DamagedImage as error:
        raise InputError(f"{file}: {error}") from None
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    size = (info.input_width or info.input_size, info.input_size)
    image = image.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    pixels = np.asarray(image if info.channels == 3 else image.convert("L"))
    return torch.from_numpy(pixels.copy()).view(info.input_size, size[0], -1).permute(2, 0, 1)


def _untrained(folder: Path) -> SavedRun:
    config: RunConfig = read_config(folder)
    prepare_process(config.seed, config.threads)
    info = config.dataset.info()
    return SavedRun(config, info, build_kept(config.model, info, folder).eval())


def _setting(looked_at: VisionModel, text: str | None) -> Pruning | None:
    model = looked_at.prunable
    if model is None:
        if text is not None:
            raise InputError(
                f"--pruning: {type(looked_at).__name__} has no tokens to prune (valid: vit, torchvision_vit, timm_vit)"
            )
        return None
    setting = model.reference.with_text(text) if text is not None else model.pruning
    if text is None and setting is not None and not setting.keeps_places:
        return None  # tokens without a place in the image cannot be drawn
    return None if setting is None else setting.on(model.host)
