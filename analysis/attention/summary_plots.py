"""Figures of the attention on many images: box plots per layer, accuracy with patches hidden. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.attention.hiding import HidingCurves
from analysis.attention.statistics import Array, LayerStatistics
from analysis.figures.drawing import GREY, as_text, new_figure, paper_style, save
from analysis.findings.series import COLOURS


def draw_statistics(
    layers: Sequence[LayerStatistics], inner: Sequence[LayerStatistics], title: str, folder: Path
) -> list[Path]:
    """Draw box plots per layer, over images and heads: entropy, peak, mean and distance where they are informative.

    The mean is constant without CLS, and a distance needs patch queries; inner attention gets panels of its own.
    """
    panels = _panels(layers, "what decides" if inner else "") + _panels(inner, "self-attention inside")
    rows = -(-len(panels) // 2)
    with paper_style():
        figure = new_figure(7.2, 2.5 * rows + 0.2)
        grid = figure.subplots(rows, 2, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.axis("off")
        for axes, (group, label, of_layer) in zip(grid.flat, panels, strict=False):
            axes.set_title(group, fontsize=8, fontweight="normal", loc="left")
            axes.boxplot([v.ravel() for v in of_layer.values()], showfliers=False, medianprops={"color": COLOURS[1]})
            axes.set_ylabel(as_text(label))
            names = list(of_layer)
            axes.set_xticklabels([name.removeprefix("block ").removesuffix(" self-attention") for name in names])
            axes.set_xlabel("block" if names[0].startswith("block") else "layer")
        images, heads = (inner or layers)[0].entropy.shape
        each = f" x {heads} heads{' of self-attention' if inner else ''}" if heads > 1 else ""
        note = f"boxes: quartiles over {images} images{each}; whiskers: 1.5 box lengths"
        figure.suptitle(f"{as_text(title)}\n{note}", fontsize=9)
        return save(figure, folder, "attention_statistics", ("png",))


def _panels(layers: Sequence[LayerStatistics], group: str) -> list[tuple[str, str, dict[str, Array]]]:
    """Return group, label and values by layer of every panel that all these layers have numbers for."""
    if not layers:
        return []
    kinds: dict[str, list[Array | None]] = {
        "entropy (1: uniform)": [layer.entropy for layer in layers],
        "highest share on one patch": [layer.peak for layer in layers],
        "mean attention to a patch": [layer.mean for layer in layers],
        "attention distance (patches)": [layer.distance for layer in layers],
        **{name: [layer.own[name] for layer in layers] for name in layers[0].own},
    }
    names = [layer.name for layer in layers]
    found = []
    for label, values in kinds.items():
        known = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if len(known) == len(names):
            found.append((group, label, known))
    return found


def draw_hiding(curves: HidingCurves, title: str, folder: Path) -> list[Path]:
    """Draw accuracy over the share of patches hidden, and shown, with the random control."""
    lines = curves.curves()
    with paper_style():
        figure = new_figure(7.2, 2.9)
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, kind, names in (
            (left, "hidden", ("deletion_most", "deletion_least", "deletion_random")),
            (right, "shown", ("insertion_most", "insertion_random")),
        ):
            for name in names:
                order = name.split("_")[1]
                style = {"most": (COLOURS[1], "o"), "least": (COLOURS[0], "s"), "random": (GREY, "^")}[order]
                text = "random order" if order == "random" else f"{order} attended first"
                percent = 100 * np.array(curves.shares_of(name))
                axes.plot(percent, 100 * lines[name], color=style[0], marker=style[1], label=text)
            axes.set_xlabel(f"patches {kind} (%)")
            axes.legend()
        left.set_ylabel("accuracy (%)")
        left.set_ylim(0, 102)
        figure.suptitle(as_text(title), fontsize=9)
        return save(figure, folder, "attention_deletion_insertion", ("png",))
