"""Random crops and flips of a whole uint8 batch at once, on the device it is on.

Shapes: B batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Augment:
    """Shifts every image by up to ``crop`` pixels and mirrors every second one.

    What comes in at an edge is the image reflected there: a black rim would be seen in training only, and a router
    that learned its threshold with it would route more without. What is drawn depends on the generator only, never on
    the device.
    """

    crop: int
    flip: bool
    generator: torch.Generator

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 images (B, C, H, W) moved, each in its own way."""
        if self.crop:
            images = self._shifted(images)
        if self.flip:
            mirrored_B = torch.rand(len(images), generator=self.generator) < 0.5
            images = torch.where(mirrored_B.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)
        return images

    def _shifted(self, images: Tensor) -> Tensor:
        batch_size, _, height, width = images.shape
        corners = torch.randint(0, 2 * self.crop + 1, (2, batch_size), generator=self.generator)
        top, left = corners.to(images.device)
        rows, columns = (_reflected(size, self.crop).to(images.device) for size in (height, width))
        windows = images[:, :, rows][..., columns].unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(batch_size, device=images.device), :, top, left]


def _reflected(size: int, margin: int) -> Tensor:
    """Return the places 0 ... size - 1 with ``margin`` more to each side, counted back from the edge."""
    period = max(1, 2 * (size - 1))
    places = torch.arange(-margin, size + margin).abs() % period
    return torch.minimum(places, period - places)
