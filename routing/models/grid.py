"""Cutting an image into a grid of patches with a margin of context: views first, copies only for what is used.

Shapes: B batch, C channels, N = g * g patches (row by row), P side of a cropped patch in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PatchGrid:
    """How patches lie on an image: ``grid`` per side, each cell enlarged by ``margin`` pixels on every side."""

    input_size: int
    grid: int
    margin: int

    @property
    def num_patches(self) -> int:
        """N, patches per image."""
        return self.grid**2

    @property
    def cell(self) -> int:
        """Side of a cell in pixels, without margin."""
        return self.input_size // self.grid

    @property
    def side(self) -> int:
        """P, side of a cropped patch in pixels, with margin."""
        return self.cell + 2 * self.margin

    def view(self, images: Tensor) -> Tensor:
        """Return all patches of (B, C, H, W) as a view (B, g, g, C, P, P) of the zero-padded images."""
        padded = F.pad(images, (self.margin,) * 4) if self.margin else images
        patches = padded.unfold(2, self.side, self.cell).unfold(3, self.side, self.cell)
        return patches.permute(0, 2, 3, 1, 4, 5)

    def all(self, images: Tensor) -> Tensor:
        """Return every patch, flattened: (B, C, H, W) -> (B * N, C * P * P)."""
        return self.view(images).reshape(len(images) * self.num_patches, -1)

    def crop(self, view: Tensor, rows: Tensor) -> Tensor:
        """Copy only the patches ``rows`` (K,), flat indices b * N + n, out of ``view``: (K, C * P * P)."""
        image = torch.div(rows, self.num_patches, rounding_mode="floor")
        patch = rows - image * self.num_patches
        i = torch.div(patch, self.grid, rounding_mode="floor")
        return view[image, i, patch - i * self.grid].flatten(1)

    def covered_by(self, boxes: Tensor) -> Tensor:
        """Return the share of each box inside each cell: boxes (B, 4) top, left, height, width -> float (B, N)."""
        edges = torch.arange(self.grid, device=boxes.device) * self.cell
        top, left, height, width = boxes.unsqueeze(-1).unbind(1)
        rows = (torch.minimum(edges + self.cell, top + height) - torch.maximum(edges, top)).clamp(min=0)
        columns = (torch.minimum(edges + self.cell, left + width) - torch.maximum(edges, left)).clamp(min=0)
        area = rows.unsqueeze(2) * columns.unsqueeze(1)
        return area.flatten(1) / (height * width)
