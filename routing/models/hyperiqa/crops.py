"""Where crops of an image lie: a fixed grid, or random places; one at random for every image in training.

Shapes: B batch, H and W of the images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# (vertical, horizontal) place of each crop as a share of what the image leaves free; the first n are used
CROP_PLACES = ((0.5, 0.5), (0, 0), (1, 1), (0, 1), (1, 0), (0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1))
MOST_RANDOM = 25
_MIX = 0x9E3779B1  # an odd number near 2**32 over the golden ratio: spreads neighbouring keys


def crop(images: Tensor, size: int, place: tuple[float, float]) -> Tensor:
    """Return the square of ``size`` pixels at one place (see ``CROP_PLACES``) of images (B, C, H, W)."""
    top, left = (round(share * (free - size)) for share, free in zip(place, images.shape[2:], strict=True))
    return images[:, :, top : top + size, left : left + size]


def crop_each(images: Tensor, size: int, places: Sequence[tuple[float, float]]) -> Tensor:
    """Return the square of ``size`` pixels of every image (B, C, H, W) at a place of its own."""
    return torch.cat([crop(image[None], size, place) for image, place in zip(images, places, strict=True)])


def random_places(images: Tensor, count: int, seed: int) -> list[list[tuple[float, float]]]:
    """Return ``count`` lists of a random place for every image (B, C, H, W).

    They depend on ``seed`` and the pixels alone: an image has the same ones in any batch and any epoch, and the first
    n of them are the same for every ``count``.
    """
    pixels = (images.detach().cpu().double() * 64).round().long().flatten(1)
    weights = (torch.arange(pixels.shape[1]) * _MIX) % 2**31
    keys = ((pixels * weights).sum(dim=1) + seed * _MIX) % 2**63
    drawn = [
        torch.rand(MOST_RANDOM, 2, generator=torch.Generator().manual_seed(int(key)))[:count].tolist() for key in keys
    ]
    return [[(place[number][0], place[number][1]) for place in drawn] for number in range(count)]


def training_view(images: Tensor, size: int) -> Tensor:
    """Return a crop of every image at a random place of its own, each mirrored or not."""
    images = crop_each(images, size, [(top, left) for top, left in torch.rand(len(images), 2).tolist()])
    mirrored = (torch.rand(len(images)) < 0.5).to(images.device, non_blocking=True)
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
