"""Images as models and training meet them: uint8 tensors in named splits, normalised on the device batch by batch.

torch is imported by the two functions that need it: checking a configuration passes here and should not wait for it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from routing.errors import InputError, choices

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from routing.data.images import LazyImages

SPLITS = ("train", "val", "test")


_LEAST = {"channels": 1, "input_size": 1, "num_outputs": 1, "patch_grid_size": 1, "patch_margin": 0, "input_width": 0}
"""Of ``DataInfo``: the lowest value of each whole number."""


@dataclass(frozen=True)
class DataInfo:
    """What a model must know of its data.

    ``mean`` and ``std`` are per channel, of pixels scaled to [0, 1]. ``patch_grid_size`` and ``patch_margin`` are how
    patch models cut an image. ``num_outputs`` is the number of classes (1 for the quality task). ``groups`` are kinds
    of image (distortions, say) that ``Split.extra["group"]`` counts. ``facts`` names what ``Split.extra`` holds for
    models that ask for more than pixels. ``input_width`` is given where images are not square.
    """

    task: str
    channels: int
    input_size: int
    num_outputs: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    patch_grid_size: int = 1
    patch_margin: int = 0
    groups: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    input_width: int = 0

    @property
    def short_side(self) -> int:
        """Height or width of an image, whichever is smaller."""
        return min(self.input_size, self.input_width or self.input_size)

    def to_json(self) -> str:
        """Return it as JSON, to be kept beside the weights that were trained for it."""
        return json.dumps(asdict(self))  # escaped: the name of a folder need not be valid text

    @classmethod
    def from_json(cls, text: str) -> DataInfo:
        """Parse the output of ``to_json``.

        Raises:
            InputError: it is not that.
        """
        try:
            found: dict[str, Any] = json.loads(text)
            found = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
            info = cls(**found)
            info.check()
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"what the weights say of their data is not readable: {error}") from None
        return info

    def check(self) -> None:
        """Raise ``ValueError`` for a size or a count that no data have."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is {value!r} (valid: whole numbers from {least} on)")
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple) or len(numbers) != self.channels:
                raise ValueError(f"{name} is not one number for each of {self.channels} channels: {numbers!r}")
            if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in numbers):
                raise ValueError(f"{name} holds what is no finite number: {numbers!r}")
        if not all(self.std):
            raise ValueError(f"std holds 0: {self.std!r}")

    def class_name(self, index: int) -> str:
        """Return the name of a class, its number where the data have no names."""
        return self.class_names[index] if index < len(self.class_names) else str(index)


@dataclass(frozen=True)
class Split:
    """One split: ``images`` uint8 (N, C, H, W), ``targets`` (N,), ``extra`` per-image facts such as digit boxes.

    Images that are read when asked for stay where they are with ``on_device`` False, and with "auto" where they would
    take more than half of a GPU's free memory; batches of them are then sent ahead.
    """

    images: Tensor | LazyImages
    targets: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    on_device: bool | str = "auto"

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Split:
        """Return the split on a device; on the CPU a memory-mapped split stays memory-mapped."""
        if device.type == "cpu":
            return self
        from routing.data.feeding import fits

        extra = {key: value.to(device) for key, value in self.extra.items()}
        moves = fits(self.images.nbytes, device) if self.on_device == "auto" else self.on_device
        images = self.images[:].to(device) if moves else self.images
        return Split(images, self.targets.to(device), extra, self.on_device)


@dataclass(frozen=True)
class ImageData:
    """All splits of a data set, and its description for the model.

    ``key`` is a digest of their content, the same on every machine; empty where it is not known.
    """

    info: DataInfo
    splits: dict[str, Split]
    key: str = ""

    def identity(self) -> str:
        """Return a digest of the training and validation data: the key where there is one, else of every pixel."""
        digest = hashlib.sha256(self.key.encode())
        for split in [] if self.key else [self.splits[name] for name in ("train", "val") if name in self.splits]:
            for tensor in (split.images[:], split.targets):
                digest.update(tensor.contiguous().numpy())
        return digest.hexdigest()

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits:
            raise InputError(f"these data have no split '{split}' (valid: {choices(sorted(self.splits))})")
        return self.splits[split]


@dataclass(frozen=True)
class Batch:
    """``images`` float (B, C, H, W), normalised; ``targets`` (B,); ``indices`` (B,) into the split; ``facts``."""

    images: Tensor
    targets: Tensor
    indices: Tensor
    facts: dict[str, Tensor] = field(default_factory=dict)


def normalise(images: Tensor, info: DataInfo) -> Tensor:
    """Turn uint8 (B, C, H, W) into float32 with zero mean and unit variance per channel."""
    import torch

    mean, std = (torch.tensor(numbers).to(images.device, non_blocking=True) for numbers in (info.mean, info.std))
    mean, scale = mean.view(1, -1, 1, 1) * 255, 1 / (std.view(1, -1, 1, 1) * 255)
    return (images.float() - mean).mul_(scale)


def num_steps(images: int, batch_size: int) -> int:
    """Return the batches of an epoch of training: a last image alone joins the batch before.

    Batch norm cannot train on one value.
    """
    steps = math.ceil(images / batch_size)
    return steps - 1 if steps > 1 and images % batch_size == 1 < batch_size else steps


def batches(
    split: Split,
    info: DataInfo,
    batch_size: int,
    order: Tensor | None = None,
    facts: Sequence[str] = (),
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Batch]:
    """Yield normalised batches in ``order`` (indices (M,)), or in the order of the split; the last may be smaller.

    Args:
        order: of a training; its batches are ``num_steps``.
        facts: columns of ``split.extra`` that come along.
        augment: uint8 images (B, C, H, W) -> the same, moved.
    """
    import torch

    from routing.data.feeding import fed

    if order is None:
        order, count = torch.arange(len(split)), math.ceil(len(split) / batch_size)
    else:
        count = num_steps(len(order), batch_size)
    chunks = order.tensor_split(tuple(range(batch_size, count * batch_size, batch_size)))
    device = split.targets.device
    for indices, pixels in zip(chunks, fed(split.images, chunks, device), strict=True):
        where = indices.to(device, non_blocking=True)
        images = normalise(pixels if augment is None else augment(pixels), info)
        yield Batch(images, split.targets[where], indices, {name: split.extra[name][where] for name in facts})
