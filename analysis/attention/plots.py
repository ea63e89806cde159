"""Figures of the attention on one image; drawing only, all values are computed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.drawing import as_text, new_figure, paper_style, save
from analysis.findings.series import COLOURS
from routing.errors import InputError, nearest

Array = NDArray[np.float64]

COLUMNS = 7


@dataclass(frozen=True)
class Look:
    """How attention is drawn: matplotlib's ``colormap``; ``smooth``: interpolated where it lies over the image."""

    colormap: str = "viridis"
    smooth: bool = False

    def __post_init__(self) -> None:
        if self.colormap not in mpl.colormaps:
            close = nearest(self.colormap, mpl.colormaps)
            raise InputError(
                f"--colormap '{self.colormap}': no colour map of matplotlib{close} (valid: viridis, magma, jet ...)"
            )

    def said(self) -> str:
        """Return the note that a figure must show about it."""
        return "; interpolated between patches over the image" if self.smooth else ""


@dataclass(frozen=True)
class PrunedView:
    """What pruning did to one sample: patches kept (N,) bool, and the last layer's attention on them (N,)."""

    kept: NDArray[np.bool_]
    attention: Array
    before: Array
    prediction: str
    words: str


@dataclass(frozen=True)
class SampleView:
    """One image as it is drawn: pixels (S, S) or (S, S, 3) in [0, 1]; attention of every layer (H, N) to patches.

    layers are what the prediction reads; inner ones, where there are any, only form it.
    entropy: of every layer's head-averaged map. cosine: of each such map to that of the layer before.
    """

    index: int
    pixels: Array
    label: str
    prediction: str
    layers: Sequence[Array]
    names: Sequence[str]
    grids: Sequence[tuple[int, int]]
    entropy: Sequence[float]
    cosine: Sequence[float]
    title: str
    pruned: PrunedView | None = None
    inner: Sequence[Array] = field(default=())
    inner_names: Sequence[str] = field(default=())
    inner_grids: Sequence[tuple[int, int]] = field(default=())

    def heading(self) -> str:
        """Return the title of a figure: the image and the prediction."""
        return as_text(f"{self.title}\nsample {self.index}: true {self.label}, predicted {self.prediction}")


OwnFigure = Callable[[SampleView], Figure]
"""A figure of one's own, drawn for every sample."""


def draw_sample(sample: SampleView, number: int, folder: Path, look: Look, own: Mapping[str, OwnFigure]) -> list[Path]:
    """Draw the files of one sample: pattern, heads, layers where there are several, pruning, those of one's own."""
    figures: dict[str, OwnFigure] = {
        "attention_pattern": lambda view: _pattern(view, look),
        "attention_heads": lambda view: _heads(view, look),
    }
    if len(sample.layers) > 1:
        figures["layer_comparison"] = lambda view: _layers(view, look)
    if sample.pruned is not None:
        pruned = sample.pruned
        figures["attention_pruning"] = lambda view: _pruning(view, pruned, look)
    with paper_style():
        return [
            path
            for name, draw in (*figures.items(), *own.items())
            for path in save(draw(sample), folder, f"{name}_sample_{number}", ("png",))
        ]


def bands_of(tiles: int) -> tuple[int, int]:
    """Return (bands, columns) of that many tiles, as even as they can be: 7 are one band, 13 are 7 + 6."""
    bands = -(-tiles // COLUMNS)
    return bands, -(-tiles // bands)


def _pattern(sample: SampleView, look: Look) -> Figure:
    """Every layer's attention averaged over heads: alone, and over the image; one colour scale for all."""
    maps = [layer.mean(axis=0) for layer in sample.layers]
    top = max(float(values.max()) for values in maps)
    bands, columns = bands_of(len(maps) + 1)
    figure = new_figure(max(1.3 * columns + 0.8, 4.2), 2.7 * bands + 0.6)
    grid = figure.subplots(2 * bands, columns, squeeze=False)
    _blank(grid)
    _show(grid[0, 0], sample.pixels, "image")
    for place, values in enumerate(maps, start=1):
        band, column = divmod(place, columns)
        shape = sample.grids[place - 1]
        image = grid[2 * band, column].imshow(values.reshape(shape), cmap=look.colormap, vmin=0, vmax=top)
        grid[2 * band, column].set_title(sample.names[place - 1], fontsize=8, fontweight="normal", loc="center")
        grid[2 * band, column].axis("off")
        _overlay(grid[2 * band + 1, column], sample.pixels, values.reshape(shape), top, look)
    figure.colorbar(image, ax=grid, shrink=0.8 / bands, label="share of attention to patches")
    figure.suptitle(f"{sample.heading()}\none colour scale for all maps{look.said()}", fontsize=9)
    return figure


def _heads(sample: SampleView, look: Look) -> Figure:
    """All heads side by side, a row per layer; each map on its own scale, its highest value written above.

    Where inner attention forms the map that decides, that map stands first in the row, then the inner heads.
    """
    rows = [
        [(f"head {head}", values, shape) for head, values in enumerate(layer)]
        for layer, shape in zip(sample.layers, sample.grids, strict=True)
    ]
    if sample.inner:
        heads_of = zip(sample.inner, sample.inner_grids, strict=True)
        inner = [[(f"head {h}", v, shape) for h, v in enumerate(layer)] for layer, shape in heads_of]
        rows = [[("map", row[0][1], row[0][2]), *more] for row, more in zip(rows, inner, strict=True)]
    columns = max(len(row) for row in rows)
    figure = new_figure(max(1.0 * columns + 1.2, 4.2), 1.15 * len(rows) + 1.0)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    _blank(grid)
    for axes_row, row, name in zip(grid, rows, sample.names, strict=True):
        for axes, (word, values, shape) in zip(axes_row, row, strict=False):
            axes.imshow(values.reshape(shape), cmap=look.colormap, vmin=0)
            axes.axis("on")
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.set_title(f"{word}: {values.max():.2f}", fontsize=6.5, fontweight="normal", loc="center", pad=2)
        axes_row[0].set_ylabel(name, fontsize=8)
    what = "map: what decides; head: self-attention inside" if sample.inner else "head"
    figure.suptitle(f"{sample.heading()}\n{what}: highest share (each map's colours run from 0 to it)", fontsize=9)
    return figure


def _layers(sample: SampleView, look: Look) -> Figure:
    """Layer by layer: the head-averaged maps in a row, and below how focused each is and how like the one before."""
    maps = [layer.mean(axis=0) for layer in sample.layers]
    figure = new_figure(max(1.0 * len(maps) + 0.6, 4.8), 3.9)
    outer = figure.add_gridspec(2, 1, height_ratios=[1, 1.6])
    row = outer[0].subgridspec(1, len(maps))
    for index, (values, name, shape) in enumerate(zip(maps, sample.names, sample.grids, strict=True)):
        axes = figure.add_subplot(row[index])
        axes.imshow(values.reshape(shape), cmap=look.colormap, vmin=0)
        axes.set_title(f"{name}\n{values.max():.2f}", fontsize=7, fontweight="normal", loc="center")
        axes.axis("off")
    below = figure.add_subplot(outer[1])
    places = range(len(maps))
    below.plot(places, sample.entropy, marker="o", color=COLOURS[0], label="entropy of the map (1: uniform)")
    below.plot(places[1:], sample.cosine, marker="s", color=COLOURS[1], label="cosine to the layer before")
    below.set(ylim=(0, 1.05), xticks=list(places), xlabel="layer", ylabel="0 to 1")
    below.set_xticklabels(list(sample.names))
    below.legend(loc="lower left")
    words = "above each map: its highest share, to which its own colours run from 0"
    figure.suptitle(f"{sample.heading()}\n{words}", fontsize=9)
    return figure


def _pruning(sample: SampleView, view: PrunedView, look: Look) -> Figure:
    """The image, what CLS attends to where tokens are chosen, what was kept, and the last layer's attention after."""
    figure = new_figure(7.2, 2.6)
    panels = figure.subplots(1, 4)
    shape = sample.grids[-1]
    _show(panels[0], sample.pixels, "image")
    _overlay(panels[1], sample.pixels, view.before.reshape(shape), float(view.before.max()), look)
    panels[1].set_title("attention where chosen", fontsize=8, fontweight="normal", loc="center")
    _show(panels[2], sample.pixels, f"{int(view.kept.sum())} of {view.kept.size} kept (grey: dropped)")
    dropped = np.where(view.kept.reshape(shape), np.nan, 1.0)
    extent = (-0.5, sample.pixels.shape[1] - 0.5, sample.pixels.shape[0] - 0.5, -0.5)
    panels[2].imshow(dropped, cmap="Greys", vmin=0, vmax=1.4, alpha=0.8, extent=extent)
    _overlay(panels[3], sample.pixels, view.attention.reshape(shape), float(view.attention.max()), look)
    panels[3].set_title(f"last layer after: {as_text(view.prediction)}", fontsize=8, fontweight="normal", loc="center")
    words = f"{as_text(view.words)}; colours of each map from 0 to its highest share{look.said()}"
    figure.suptitle(f"{sample.heading()}\n{words}", fontsize=8)
    return figure


def _blank(grid: NDArray[np.object_]) -> None:
    for axes in grid.flat:
        axes.axis("off")


def _show(axes: Axes, pixels: Array, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=8, fontweight="normal", loc="center")
    axes.axis("off")


def _overlay(axes: Axes, pixels: Array, values: Array, top: float, look: Look) -> None:
    """Show attention over the image, patch by patch as it is unless ``look`` asks for interpolation."""
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
    extent = (-0.5, grey.shape[1] - 0.5, grey.shape[0] - 0.5, -0.5)
    between = "bicubic" if look.smooth else "nearest"
    axes.imshow(values, cmap=look.colormap, vmin=0, vmax=top, alpha=0.55, extent=extent, interpolation=between)
    axes.axis("off")
