"""Figures of a results folder. Draws what it is given and computes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from analysis.objectives import Objective
from analysis.summary import Summary
from analysis.words import axis_label, scale

GREY, FRONT, KNEE = "#B0B0B0", "#0072B2", "#D55E00"
BASELINE_STYLES = {  # Okabe-Ito colours, and shapes for who sees none
    "full_compute": ("s", "#000000"),
    "dense_matched": ("P", "#CC79A7"),
    "no_routing": ("^", "#009E73"),
    "cheap_compute": ("D", "#E69F00"),
}
WIDTHS = {"single": 3.5, "double": 7.2}  # inches, the columns of a two-column paper
FORMATS = ("png", "svg", "pdf")


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw with the style file that ships with the package."""
    with as_file(files("analysis") / "paper.mplstyle") as path, mpl.style.context(["default", path]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of that size in inches that needs no display and no global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, folder: Path, name: str, formats: Iterable[str]) -> list[Path]:
    """Write a figure as ``folder/name.<format>`` for every format; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in formats]
    for path in paths:
        figure.savefig(path, metadata={"Date": None} if path.suffix in (".svg",) else None)
    return paths


def cost_axis(axes: Axes, objective: Objective, values: pd.Series) -> None:
    """Label the x axis; a positive cost is drawn on a logarithmic scale with readable ticks."""
    axes.set_xlabel(axis_label(objective.metric) + (", log scale" if objective.is_cost else ""))
    if not objective.is_cost or not len(values) or values.min() <= 0:
        return
    axes.set_xscale("log")
    decades = values.max() / values.min()
    steps: Any = (1, 2, 5) if decades < 300 else (1,)
    if decades < 4:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter("")


def draw_front(summary: Summary, formats: Iterable[str], folder: Path, width: str = "double") -> list[Path]:
    """Draw every point, the front, the baselines and the knee: first objective against the second."""
    if len(summary.results.objectives) < 2:
        return []
    with paper_style():
        wide = width == "double"
        figure = new_figure(WIDTHS[width], 3.6 if wide else 4.2)
        axes = figure.add_subplot()
        _front_points(axes, summary)
        axes.set_title(_plain(summary.results.name))
        handles = {"loc": "outside right upper"} if wide else {"loc": "outside lower center", "ncols": 2}
        figure.legend(**handles)
        return save(figure, folder, "front", formats)


def _front_points(axes: Axes, summary: Summary) -> None:
    objectives, points, front = summary.results.objectives, summary.results.points, summary.front
    task, cost = objectives[0], objectives[1]
    y_scale = scale(task.metric)
    axes.scatter(
        points[cost.metric],
        points[task.metric] * y_scale,
        s=10,
        c=GREY,
        linewidths=0,
        alpha=0.7,
        zorder=2,
        label=f"all operating points ({len(points)})",
    )
    axes.plot(
        front[cost.metric],
        front[task.metric] * y_scale,
        drawstyle="steps-post",
        marker="o",
        color=FRONT,
        zorder=4,
        label=f"front ({len(front)})",
    )
    for _, row in summary.baselines.iterrows():
        marker, colour = BASELINE_STYLES[row["model.name"]]
        axes.scatter(
            row[cost.metric],
            row[task.metric] * y_scale,
            marker=marker,
            s=60,
            c=colour,
            edgecolors="white",
            linewidths=0.8,
            zorder=5,
            label=row["model.name"],
        )
    knee = summary.knee_row
    if knee is not None:
        axes.scatter(
            knee[cost.metric],
            knee[task.metric] * y_scale,
            s=150,
            facecolors="none",
            edgecolors=KNEE,
            linewidths=2,
            zorder=6,
            label=f"knee (trial {int(knee['trial'])})",
        )
    cost_axis(axes, cost, points[cost.metric])
    axes.set_ylabel(axis_label(task.metric))


def draw_hypervolume(summary: Summary, formats: Iterable[str], folder: Path) -> list[Path]:
    """Draw how the hypervolume grew over trials and over seconds spent training."""
    history = summary.history
    if history.empty:
        return []
    with paper_style():
        figure = new_figure(WIDTHS["double"], 2.8)
        left, right = figure.subplots(1, 2, sharey=True)
        left.step(history["number"], history["hypervolume"], where="post")
        left.set_xlabel("trial number")
        left.set_ylabel("hypervolume")
        left.xaxis.get_major_locator().set_params(integer=True)
        right.step(history["train_seconds"], history["hypervolume"], where="post")
        right.set_xlabel("training, sum over trials (s)")
        return save(figure, folder, "hypervolume", formats)


def _plain(text: str) -> str:
    """Return text that matplotlib shows as it is: ``$`` would start a formula."""
    return text.replace("$", r"\$")
