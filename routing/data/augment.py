"""Random crops and flips of a whole uint8 batch at once, on the device it is on.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass
class Augment:
    """Shifts every image by up to ``crop`` pixels and mirrors each with probability one half.

    What comes in at an edge is the image reflected there: a black rim would be seen in training only, and a router
    that learned its threshold with it would route more without. What is drawn depends on the generator only, never on
    the device.
    """

    crop: int
    flip: bool
    generator: torch.Generator

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 images (B, C, H, W) moved, each in its own way."""
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
        return _gathered(images, rows_BH.to(images.device), columns_BW.to(images.device))


def _gathered(images: Tensor, rows_BH: Tensor, columns_BW: Tensor) -> Tensor:
    """Return images (B, C, H, W) with these rows and columns of each; whole rows first, which are copied at once."""
    batch_size, channels, height, width = images.shape
    first_rows = torch.arange(batch_size * channels, device=images.device).view(batch_size, channels, 1) * height
    rows = (first_rows + rows_BH.unsqueeze(1)).flatten()
    lines = images.reshape(-1, width).index_select(0, rows).view(batch_size, channels * height, width)
    return lines.gather(2, columns_BW.unsqueeze(1).expand_as(lines)).view_as(images)


@lru_cache(maxsize=16)
def _reflected(size: int, margin: int) -> Tensor:
    """Return the places 0 ... size - 1 with ``margin`` more to each side, counted back from the edge."""
    period = max(1, 2 * (size - 1))
    places = torch.arange(-margin, size + margin).abs() % period
    return torch.minimum(places, period - places)
