"""Attention and decisions on a few images, epoch by epoch, as a run with ``training.pictures_every`` kept them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.drawing import KNEE, new_figure

if TYPE_CHECKING:
    from routing.commands.inspection import Inspection

TILE = 1.3  # inches, one image
MOST = 8
"""Epochs that are shown: the first, the last, and others at equal distances."""


def strip(seen: Inspection) -> Figure:
    """Draw a row per image and a column per epoch; one scale of colours for all, frames where the model decided for."""
    epochs = shown_epochs(list(seen.pictures))
    first = seen.pictures[epochs[0]]
    scale = Normalize(0, max(float(seen.pictures[epoch]["attention"].max()) for epoch in epochs))
    rows, (height, width) = len(first["images"]), first["images"].shape[2:]
    figure = new_figure(len(epochs) * TILE + 1.0, rows * TILE + 0.7)
    figure.suptitle(f"Attention while training: {seen.title}", x=0.01, ha="left", fontweight="bold", fontsize=10)
    axes = figure.subplots(rows, len(epochs), squeeze=False)
    for column, epoch in enumerate(epochs):
        found = seen.pictures[epoch]
        axes[0, column].set_title(f"epoch {epoch}", fontsize=8, fontweight="normal")
        for ax, image, attention in zip(axes[:, column], found["images"], found["attention"], strict=True):
            ax.set_axis_off()
            grey = image.shape[0] == 1
            ax.imshow(image[0] if grey else image.transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=255)
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            ax.imshow(attention, cmap="viridis", norm=scale, alpha=0.55, extent=extent, interpolation="nearest")
        if "decided" in found:
            for ax, decided in zip(axes[:, column], found["decided"], strict=True):
                high, wide = height / decided.shape[0], width / decided.shape[1]
                for y, x in np.argwhere(decided):
                    place = (x * wide - 0.5, y * high - 0.5)
                    ax.add_patch(Rectangle(place, wide, high, fill=False, edgecolor=KNEE, linewidth=1.0))
    figure.colorbar(ScalarMappable(scale, "viridis"), ax=axes, label="attention, one scale for all", shrink=0.7)
    if "decided" in first:
        frame = Rectangle((0, 0), 1, 1, fill=False, edgecolor=KNEE, label="takes the expensive path")
        figure.legend(handles=[frame], loc="outside lower center")
    return figure


def shown_epochs(epochs: list[int]) -> list[int]:
    """Return at most ``MOST`` of them, the first and the last among them."""
    picks = np.linspace(0, len(epochs) - 1, min(MOST, len(epochs))).round().astype(int)
    return [epochs[pick] for pick in picks]
