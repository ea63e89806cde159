"""Figures of one run: training curves, attention, and the compute spent on each patch.

Everything drawn comes from an ``Inspection``; nothing is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analysis.figures.drawing import FRONT, GREY, KNEE, new_figure, paper_style, save
from analysis.figures.strip import strip
from analysis.findings.series import COLOURS
from analysis.words.words import axis_label, scale
from routing.quantities import on_split, ordered, split_of

if TYPE_CHECKING:
    from routing.commands.inspection import Inspection, PatchSamples

HEAT = "viridis"  # even in lightness: readable without colour
COLUMNS = 4
TILE = 1.9  # inches, one image
LOSS_NAMES = {"train_loss": "training, all terms", "val_loss": "validation, task"}
MANY_PATCHES = 64  # with more, a number in each could not be read


def draw_run(seen: Inspection, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Draw every figure this run has something for into ``folder``; return the paths."""
    paths: list[Path] = []
    with paper_style():
        if seen.history:
            paths += save(_training_curves(seen), folder, "training_curves", formats)
        if seen.samples is not None:
            paths += save(_heat_map(seen, seen.samples), folder, "attention_heatmap", formats)
            if seen.routing_ratio is not None:
                paths += save(_decisions(seen, seen.samples), folder, "routing_decisions", formats)
            if seen.samples.grid**2 <= MANY_PATCHES:
                paths += save(_score_grid(seen, seen.samples), folder, "patch_scores", formats)
        if seen.routing_ratio is not None:
            paths += save(_rate_histogram(seen), folder, "rate_histogram", formats)
        if seen.pictures:
            paths += save(strip(seen), folder, "attention_while_training", formats)
    return paths


def _training_curves(seen: Inspection) -> Figure:
    panels: list[Callable[[Axes, Inspection], None]] = [_loss_panel]
    columns = {column for row in seen.history for column in row}
    panels += [_metric_panel] if _task_metric(seen) else []
    panels += [_ratio_panel] if "routing_ratio" in columns else []
    panels += [_threshold_panel] if "threshold" in columns else []
    rows = math.ceil(len(panels) / 2)
    figure = new_figure(7.2, 2.6 * rows + 0.3)
    figure.suptitle(seen.title, x=0.01, ha="left", fontweight="bold", fontsize=10)
    axes = figure.subplots(rows, 2, squeeze=False).flatten()
    for panel, ax in zip(panels, axes, strict=False):
        panel(ax, seen)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    return figure


def _line(ax: Axes, seen: Inspection, column: str, colour: str, label: str = "") -> None:
    points = [(row["epoch"], row[column]) for row in seen.history if column in row]
    if points:
        ax.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3.5, label=label)


def _loss_panel(ax: Axes, seen: Inspection) -> None:
    for (column, label), colour in zip(LOSS_NAMES.items(), (GREY, FRONT), strict=True):
        _line(ax, seen, column, colour, label)
    ax.set_ylabel("loss")
    ax.set_ylim(bottom=0)
    ax.legend()


def _task_metric(seen: Inspection) -> str:
    """Return the column of the task's metric in the history; empty where there is none beside the loss."""
    columns = ordered(column for row in seen.history for column in row)
    return next((column for column in columns if split_of(column) == "val" and column not in LOSS_NAMES), "")


def _metric_panel(ax: Axes, seen: Inspection) -> None:
    column = _task_metric(seen)
    _line(ax, seen, on_split(column, "train"), GREY, "training batches")
    _line(ax, seen, column, FRONT, "validation")
    ax.set_ylabel(axis_label(column.removeprefix("val_")))
    ax.legend()
    if scale(column) == 100:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))


def _ratio_panel(ax: Axes, seen: Inspection) -> None:
    _line(ax, seen, "routing_ratio", FRONT, "realised")
    if seen.target_ratio is not None:
        ax.axhline(seen.target_ratio, color=KNEE, linestyle="--", linewidth=1.2, label="budget")
    ax.set_ylabel("routing ratio")
    ax.set_ylim(-0.03, 1.03)
    ax.legend()


def _threshold_panel(ax: Axes, seen: Inspection) -> None:
    """The band is where the gate is soft: one temperature to both sides."""
    _line(ax, seen, "threshold", FRONT, "threshold")
    if seen.temperature is not None:
        points = [(row["epoch"], row["threshold"]) for row in seen.history if "threshold" in row]
        epochs, middle = (np.array(values) for values in zip(*points, strict=True))
        ax.fill_between(
            epochs,
            middle - seen.temperature,
            middle + seen.temperature,
            color=FRONT,
            alpha=0.15,
            linewidth=0,
            label=f"± temperature {seen.temperature:g}",
        )
    ax.set_ylabel("attention score")
    ax.legend()


def _tiles(seen: Inspection, samples: PatchSamples, what: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with one titled image after another."""
    rows = math.ceil(len(samples.images) / COLUMNS)
    figure = new_figure(COLUMNS * TILE + 0.7, rows * (TILE + 0.3) + 0.5)
    figure.suptitle(f"{what}: {seen.title}", x=0.01, ha="left", fontweight="bold", fontsize=10)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for ax in axes:
        ax.set_axis_off()
    for ax, image, target, prediction in zip(axes, samples.images, samples.targets, samples.predictions, strict=False):
        _show(ax, image)
        verdict = "" if target == prediction else f", called {_name(seen, prediction)}"
        ax.set_title(f"{_name(seen, target)}{verdict}", fontsize=8, fontweight="normal", loc="left")
    return figure, list(axes[: len(samples.images)])


def _name(seen: Inspection, label: int) -> str:
    return seen.class_names[label] if label < len(seen.class_names) else str(label)


def _show(ax: Axes, image: Any) -> None:
    grey = image.shape[0] == 1
    ax.imshow(image[0] if grey else image.transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=255)


def _heat_map(seen: Inspection, samples: PatchSamples) -> Figure:
    """Draw the scores over the images, all on one scale."""
    figure, axes = _tiles(seen, samples, "Attention scores")
    scale = Normalize(float(samples.scores.min()), float(samples.scores.max()))
    side = samples.images.shape[-1]
    for ax, scores in zip(axes, samples.scores, strict=True):
        ax.imshow(
            scores.reshape(samples.grid, samples.grid),
            cmap=HEAT,
            norm=scale,
            alpha=0.55,
            extent=(-0.5, side - 0.5, side - 0.5, -0.5),
            interpolation="nearest",
        )
    figure.colorbar(ScalarMappable(scale, HEAT), ax=figure.axes, label="attention score", shrink=0.8)
    return figure


def _cells(samples: PatchSamples) -> tuple[float, list[tuple[float, float]]]:
    """Return the side of a cell in pixels, and left and top of every cell, row by row."""
    side = samples.images.shape[-1] / samples.grid
    corners = [(x * side - 0.5, y * side - 0.5) for y in range(samples.grid) for x in range(samples.grid)]
    return side, corners


def _decisions(seen: Inspection, samples: PatchSamples) -> Figure:
    """Frame the patches that took the big branch, dim the others."""
    figure, axes = _tiles(seen, samples, "Routing decisions")
    side, corners = _cells(samples)
    inset = max(0.3, 0.04 * side)
    for ax, routed in zip(axes, samples.routed, strict=True):
        for (x, y), on in zip(corners, routed, strict=True):
            if on:
                frame = (x + inset, y + inset), side - 2 * inset, side - 2 * inset
                ax.add_patch(Rectangle(*frame, fill=False, edgecolor=KNEE, linewidth=1.6))
            else:
                ax.add_patch(Rectangle((x, y), side, side, facecolor="white", alpha=0.45, linewidth=0))
        ax.text(
            0.02, 0.02, f"{routed.mean():.2f} routed", transform=ax.transAxes, fontsize=7, **_legible("white", "black")
        )
    keys = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=KNEE, linewidth=1.6, label="big branch")]
    keys += [Rectangle((0, 0), 1, 1, facecolor="white", edgecolor=GREY, label="small branch or skipped (dimmed)")]
    figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure


def _legible(colour: str, edge: str) -> dict[str, Any]:
    return {"color": colour, "path_effects": [withStroke(linewidth=1.8, foreground=edge)]}


def digits_to_tell_apart(scores: Any, most: int = 6) -> int:
    """Return the decimals, 1 to ``most``, after which all scores but 1 in 10 differ from the next one."""
    apart = np.diff(np.unique(scores))
    if not len(apart):
        return 1
    return int(np.clip(math.ceil(-math.log10(np.quantile(apart, 0.1))), 1, most))


def _score_grid(seen: Inspection, samples: PatchSamples) -> Figure:
    """Write the score of every patch into its cell; routed ones in colour."""
    figure, axes = _tiles(seen, samples, "Patch grid and scores")
    side, corners = _cells(samples)
    usual = 7.5 if samples.grid <= 5 else 5.0
    for ax, scores, routed in zip(axes, samples.scores, samples.routed, strict=True):
        for edge in range(samples.grid + 1):
            ax.axhline(edge * side - 0.5, color="white", linewidth=0.6)
            ax.axvline(edge * side - 0.5, color="white", linewidth=0.6)
        digits = digits_to_tell_apart(scores)
        texts = [f"{round(float(score), digits) + 0.0:.{digits}f}" for score in scores]  # never -0.0
        size = usual * min(1, 5 / max(map(len, texts)))  # more digits have no more room
        for (x, y), text, on in zip(corners, texts, routed, strict=True):
            colours = _legible("#FFD24D", "black") if on else _legible("white", "black")
            weight = "bold" if on else "normal"
            place = x + side / 2, y + side / 2
            ax.text(*place, text, ha="center", va="center", fontsize=size, weight=weight, **colours)
    if seen.routing_ratio is not None:
        figure.text(0.01, 0.0, "bold yellow: big branch", fontsize=8)
    return figure


def _rate_histogram(seen: Inspection) -> Figure:
    """Show how differently images are treated: the routing ratio of every image of the validation split."""
    assert seen.routing_ratio is not None
    figure = new_figure(4.6, 3.0)
    ax = figure.subplots()
    patches = seen.samples.grid**2 if seen.samples is not None else 20
    bins = ((np.arange(patches + 2) - 0.5) / patches if patches <= 100 else np.linspace(0, 1, 51)).tolist()
    ratio = seen.routing_ratio
    ax.hist(ratio, bins=bins, weights=np.full(len(ratio), 100 / len(ratio)), color=COLOURS[5], edgecolor="white")
    ax.axvline(ratio.mean(), color=FRONT, label=f"mean {ratio.mean():.3f}")
    if seen.target_ratio is not None:
        ax.axvline(seen.target_ratio, color=KNEE, linestyle="--", label=f"budget {seen.target_ratio:.3f}")
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("routing ratio of an image")
    ax.set_ylabel(f"share of {len(ratio):,} images (%)")
    ax.set_title(seen.title, fontsize=9)
    ax.legend()
    return figure
