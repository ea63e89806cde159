"""Augmentation of uint8 batches: shift and flip of the whole batch at once, the rest by torchvision's transforms.

torchvision's transforms draw one set of random numbers per call, so they are called for each image. Shift and flip,
which most trainings use, are 20 times faster on a whole batch. Random numbers depend on the generator only, never on
the device.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, reduce

import torch
from torch import Tensor

from routing.config.augment import AugmentSection
from routing.data import DataInfo

Step = Callable[[Tensor], Tensor]


@dataclass
class Augment:
    """Shifts every image by up to ``crop`` pixels and mirrors each with probability one half.

    Shifted-in pixels are the image reflected at its edge: a black rim would occur in training only, and a router that
    learned its threshold with it would route more patches without it.
    """

    crop: int
    flip: bool
    generator: torch.Generator

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 images (B, C, H, W), each shifted and mirrored independently."""
        batch_size, _, height, width = images.shape
        rows_BH = torch.arange(height).expand(batch_size, height)
        columns_BW = torch.arange(width).expand(batch_size, width)
        if self.crop:
            top, left = torch.randint(0, 2 * self.crop + 1, (2, batch_size, 1), generator=self.generator)
            rows_BH = _reflected(height, self.crop)[rows_BH + top]
            columns_BW = _reflected(width, self.crop)[columns_BW + left]
        if self.flip:
            mirrored_B = torch.rand(batch_size, generator=self.generator) < 0.5
            columns_BW = torch.where(mirrored_B.unsqueeze(1), columns_BW.flip(1), columns_BW)
        rows_BH, columns_BW = (places.to(images.device, non_blocking=True) for places in (rows_BH, columns_BW))
        return _gathered(images, rows_BH, columns_BW)


@dataclass
class PerImage:
    """Applies a torchvision transform, which draws from torch's global random state, to every image separately."""

    transform: Step
    generator: torch.Generator

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 images (B, C, H, W)."""
        with _drawing_from(self.generator):
            return torch.stack([self.transform(image) for image in images])


def image_steps(settings: AugmentSection, info: DataInfo, generator: torch.Generator) -> Step | None:
    """Return the augmentation of a uint8 batch (B, C, H, W) on its device, or None where all of it is off."""
    steps: list[Step] = []
    if settings.resized_crop:
        steps.append(PerImage(_resized_crop(settings, info), generator))
    if settings.crop or settings.flip:
        steps.append(Augment(settings.crop, settings.flip, generator))
    if settings.rand_augment or settings.trivial_augment or settings.color_jitter.is_on or settings.random_erasing:
        steps.append(PerImage(_appearance(settings, info), generator))
    return (lambda images: reduce(lambda found, step: step(found), steps, images)) if steps else None


def _resized_crop(settings: AugmentSection, info: DataInfo) -> Step:
    from torchvision.transforms import v2

    size = (info.input_size, info.input_width or info.input_size)
    step: Step = v2.RandomResizedCrop(size, scale=(settings.resized_crop, 1.0))
    return step


def _appearance(settings: AugmentSection, info: DataInfo) -> Step:
    from torchvision.transforms import v2

    steps: list[Step] = []
    if settings.rand_augment:
        steps.append(v2.RandAugment(settings.rand_augment, settings.rand_augment_magnitude))
    if settings.trivial_augment:
        steps.append(v2.TrivialAugmentWide())
    if settings.color_jitter.is_on:
        jitter = settings.color_jitter
        steps.append(v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue))
    if settings.random_erasing:
        colour = [round(255 * mean) for mean in info.mean]
        steps.append(v2.RandomErasing(settings.random_erasing, value=colour))
    composed: Step = v2.Compose(steps)
    return composed


@dataclass
class Mixing:
    """MixUp and CutMix: images mixed with the ones before them in the batch, and their targets alike.

    Args:
        transforms: of torchvision; each batch takes one of them at random.
    """

    transforms: Sequence[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]
    generator: torch.Generator

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised images (B, C, H, W) mixed, and the share of every class (B, K), of targets (B,)."""
        chosen = int(torch.randint(len(self.transforms), (), generator=self.generator))
        with _drawing_from(self.generator):
            return self.transforms[chosen](images, targets)


def mixing(settings: AugmentSection, info: DataInfo, generator: torch.Generator) -> Mixing | None:
    """Return mixup and cutmix, or None where both are off."""
    if not settings.mixup and not settings.cutmix:
        return None
    from torchvision.transforms import v2

    kinds = ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
    found = [kind(alpha=alpha, num_classes=info.num_outputs) for kind, alpha in kinds if alpha]
    return Mixing(found, generator)


@contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Seed torch's global random state from the generator, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def _gathered(images: Tensor, rows_BH: Tensor, columns_BW: Tensor) -> Tensor:
    """Return these rows and columns of each image (B, C, H, W); whole rows first, as they are copied in one piece."""
    batch_size, channels, height, width = images.shape
    first_rows = torch.arange(batch_size * channels, device=images.device).view(batch_size, channels, 1) * height
    rows = (first_rows + rows_BH.unsqueeze(1)).flatten()
    lines = images.reshape(-1, width).index_select(0, rows).view(batch_size, channels * height, width)
    return lines.gather(2, columns_BW.unsqueeze(1).expand_as(lines)).view_as(images)


@lru_cache(maxsize=16)
def _reflected(size: int, margin: int) -> Tensor:
    """Return the indices 0 ... size - 1 with ``margin`` more on each side, reflected at the edges."""
    period = max(1, 2 * (size - 1))
    places = torch.arange(-margin, size + margin).abs() % period
    return torch.minimum(places, period - places)
