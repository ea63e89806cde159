"""Figures of attention. Draws what it is given and computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.attention.hiding import SHARES, HidingCurves
from analysis.attention.statistics import LayerStatistics
from analysis.figures.drawing import COLOURS, GREY, as_text, new_figure, paper_style, save

Array = NDArray[np.float64]

COLUMNS = 6
HEAT = "viridis"


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

    def heading(self) -> str:
        """Return the title of a figure: what was looked at, and what the model said."""
        return as_text(f"{self.title}\nsample {self.index}: true {self.label}, predicted {self.prediction}")


def draw_sample(sample: SampleView, number: int, folder: Path) -> list[Path]:
    """Draw the files of one sample: pattern, heads, layer comparison, and pruning where there is some."""
    with paper_style():
        paths = [
            *save(_pattern(sample), folder, f"attention_pattern_sample_{number}", ("png",)),
            *save(_heads(sample), folder, f"attention_heads_sample_{number}", ("png",)),
            *save(_layers(sample), folder, f"layer_comparison_sample_{number}", ("png",)),
        ]
        if sample.pruned is not None:
            paths += save(_pruning(sample, sample.pruned), folder, f"attention_pruning_sample_{number}", ("png",))
    return paths


def _pattern(sample: SampleView) -> Figure:
    """Every layer's attention averaged over heads: alone, and over the image; one colour scale for all."""
    maps = [layer.mean(axis=0) for layer in sample.layers]
    top = max(float(values.max()) for values in maps)
    columns = min(COLUMNS, len(maps) + 1)
    bands = -(-(len(maps) + 1) // columns)
    figure = new_figure(max(1.3 * columns + 0.8, 4.2), 2.7 * bands + 0.6)
    grid = figure.subplots(2 * bands, columns, squeeze=False)
    _blank(grid)
    _show(grid[0, 0], sample.pixels, "image")
    for place, values in enumerate(maps, start=1):
        band, column = divmod(place, columns)
        shape = sample.grids[place - 1]
        image = grid[2 * band, column].imshow(values.reshape(shape), cmap=HEAT, vmin=0, vmax=top)
        grid[2 * band, column].set_title(sample.names[place - 1], fontsize=8, fontweight="normal", loc="center")
        grid[2 * band, column].axis("off")
        _overlay(grid[2 * band + 1, column], sample.pixels, values.reshape(shape), top)
    figure.colorbar(image, ax=grid, shrink=0.8 / bands, label="share of attention to patches")
    figure.suptitle(sample.heading(), fontsize=9)
    return figure


def _heads(sample: SampleView) -> Figure:
    """All heads side by side, a row per layer; each map on its own scale, its highest value written above."""
    heads = max(len(layer) for layer in sample.layers)
    figure = new_figure(max(1.0 * heads + 1.2, 4.2), 1.15 * len(sample.layers) + 0.9)
    grid = figure.subplots(len(sample.layers), heads, squeeze=False)
    _blank(grid)
    for row, (layer, name, shape) in enumerate(zip(sample.layers, sample.names, sample.grids, strict=True)):
        for head, values in enumerate(layer):
            axes = grid[row, head]
            axes.imshow(values.reshape(shape), cmap=HEAT, vmin=0)
            axes.axis("on")
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.set_title(f"head {head}: {values.max():.2f}", fontsize=6.5, fontweight="normal", loc="center", pad=2)
        grid[row, 0].set_ylabel(name, fontsize=8)
    figure.suptitle(sample.heading() + "\nhead: highest share (colours 0 to that)", fontsize=9)
    return figure


def _layers(sample: SampleView) -> Figure:
    """Layer by layer: the head-averaged maps in a row, and below how focused each is and how like the one before."""
    maps = [layer.mean(axis=0) for layer in sample.layers]
    figure = new_figure(max(1.0 * len(maps) + 0.6, 4.8), 3.9)
    outer = figure.add_gridspec(2, 1, height_ratios=[1, 1.6])
    row = outer[0].subgridspec(1, len(maps))
    for index, (values, name, shape) in enumerate(zip(maps, sample.names, sample.grids, strict=True)):
        axes = figure.add_subplot(row[index])
        axes.imshow(values.reshape(shape), cmap=HEAT, vmin=0)
        axes.set_title(name, fontsize=8, fontweight="normal", loc="center")
        axes.axis("off")
    below = figure.add_subplot(outer[1])
    places = range(len(maps))
    below.plot(places, sample.entropy, marker="o", color=COLOURS[0], label="entropy of the map (1: uniform)")
    below.plot(places[1:], sample.cosine, marker="s", color=COLOURS[1], label="cosine to the layer before")
    below.set(ylim=(0, 1.05), xticks=list(places), xlabel="layer", ylabel="0 to 1")
    below.set_xticklabels(list(sample.names))
    below.legend(loc="lower left")
    figure.suptitle(sample.heading(), fontsize=9)
    return figure


def _pruning(sample: SampleView, view: PrunedView) -> Figure:
    """The image, what CLS attends to where tokens are chosen, what was kept, and the last layer's attention after."""
    figure = new_figure(7.2, 2.6)
    panels = figure.subplots(1, 4)
    shape = sample.grids[-1]
    _show(panels[0], sample.pixels, "image")
    _overlay(panels[1], sample.pixels, view.before.reshape(shape), float(view.before.max()))
    panels[1].set_title("attention where chosen", fontsize=8, fontweight="normal", loc="center")
    _show(panels[2], sample.pixels, f"{int(view.kept.sum())} of {view.kept.size} kept (grey: dropped)")
    dropped = np.where(view.kept.reshape(shape), np.nan, 1.0)
    extent = (-0.5, sample.pixels.shape[1] - 0.5, sample.pixels.shape[0] - 0.5, -0.5)
    panels[2].imshow(dropped, cmap="Greys", vmin=0, vmax=1.4, alpha=0.8, extent=extent)
    _overlay(panels[3], sample.pixels, view.attention.reshape(shape), float(view.attention.max()))
    panels[3].set_title(f"last layer after: {as_text(view.prediction)}", fontsize=8, fontweight="normal", loc="center")
    figure.suptitle(sample.heading() + "\n" + as_text(view.words), fontsize=9)
    return figure


def draw_statistics(layers: Sequence[LayerStatistics], title: str, folder: Path) -> list[Path]:
    """Draw box plots per layer, over images and heads: entropy, peak, mean, and distance where there is one."""
    panels = [
        ("entropy (1: uniform)", [layer.entropy for layer in layers]),
        ("highest share on one patch", [layer.peak for layer in layers]),
        ("mean attention to a patch", [layer.mean for layer in layers]),
    ]
    if all(layer.distance is not None for layer in layers):
        panels.append(
            ("attention distance (patches)", [layer.distance for layer in layers if layer.distance is not None])
        )
    with paper_style():
        figure = new_figure(7.2, 2.5 * -(-len(panels) // 2))
        grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False)
        _blank(grid)
        for axes, (label, values) in zip(grid.flat, panels, strict=False):
            axes.axis("on")
            axes.boxplot([v.ravel() for v in values], showfliers=False, medianprops={"color": COLOURS[1]})
            axes.set_ylabel(label)
            axes.set_xticklabels([layer.name.removeprefix("block ") for layer in layers])
            axes.set_xlabel("block" if layers[0].name.startswith("block") else "layer")
        images, heads = layers[0].entropy.shape
        note = f"boxes: quartiles over {images} images x {heads} heads; whiskers: 1.5 box lengths"
        figure.suptitle(f"{as_text(title)}\n{note}", fontsize=9)
        return save(figure, folder, "attention_statistics", ("png",))


def draw_hiding(curves: HidingCurves, title: str, folder: Path) -> list[Path]:
    """Draw accuracy over the share of patches hidden, and shown, with the random control."""
    lines = curves.curves()
    with paper_style():
        figure = new_figure(7.2, 2.9)
        left, right = figure.subplots(1, 2, sharey=True)
        percent = 100 * np.array(SHARES)
        for axes, kind, names in (
            (left, "hidden", ("deletion_most", "deletion_least", "deletion_random")),
            (right, "shown", ("insertion_most", "insertion_random")),
        ):
            for name in names:
                order = name.split("_")[1]
                style = {"most": (COLOURS[1], "o"), "least": (COLOURS[0], "s"), "random": (GREY, "^")}[order]
                text = "random order" if order == "random" else f"{order} attended first"
                axes.plot(percent, 100 * lines[name], color=style[0], marker=style[1], label=text)
            axes.set_xlabel(f"patches {kind} (%)")
            axes.legend()
        left.set_ylabel("accuracy (%)")
        left.set_ylim(0, 102)
        figure.suptitle(as_text(title), fontsize=9)
        return save(figure, folder, "attention_deletion_insertion", ("png",))


def _blank(grid: NDArray[np.object_]) -> None:
    for axes in grid.flat:
        axes.axis("off")


def _show(axes: Axes, pixels: Array, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=8, fontweight="normal", loc="center")
    axes.axis("off")


def _overlay(axes: Axes, pixels: Array, values: Array, top: float) -> None:
    """Show attention over the image, patch by patch as it is: nothing is smoothed."""
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
    extent = (-0.5, grey.shape[1] - 0.5, grey.shape[0] - 0.5, -0.5)
    axes.imshow(values, cmap=HEAT, vmin=0, vmax=top, alpha=0.55, extent=extent)
    axes.axis("off")
