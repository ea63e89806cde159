"""What every figure shares: style, sizes, files, readable axes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from analysis.words.words import axis_label, plain
from routing.files.atomic import replacing
from routing.files.names import file_name
from routing.objectives import Objective

ColumnWidth = Literal["single", "double"]

GREY, FRONT, KNEE = "#B0B0B0", "#0072B2", "#D55E00"
CONFIRMED = "p"
"""Marker of points that were trained again; nothing else has it."""
WIDTHS: dict[ColumnWidth, float] = {"single": 3.3, "double": 7.2}  # inches, the columns of a two-column paper
FORMATS = ("png", "svg", "pdf")
_in_paper: ContextVar[bool] = ContextVar("in_paper", default=False)
_collected: ContextVar[dict[str, Figure] | None] = ContextVar("collected", default=None)


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw with the style file that ships with the package."""
    with mpl.style.context(["default", Path(__file__).parents[1] / "paper.mplstyle"]):
        yield


class ShownFigure(Figure):
    """A figure that a notebook shows; without this it shows those of pyplot only."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of that size in inches that needs no display and no global state."""
    figure = ShownFigure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, folder: Path, name: str, formats: Iterable[str]) -> list[Path]:
    """Write a figure as ``folder/name.<format>`` for every format, the name made fit for a file; return the paths."""
    paths = [folder / f"{file_name(name)}.{kind}" for kind in formats]
    figures = _collected.get()
    if figures is not None:
        figures[name] = figure
        return []
    for path in paths:
        with replacing(path) as temporary:
            size = figure.bbox_inches if _in_paper.get() else None  # exactly as wide as the column
            figure.savefig(temporary, format=path.suffix[1:], bbox_inches=size)
    return paths


@contextmanager
def for_paper() -> Iterator[None]:
    """Have figures that are drawn meanwhile without a title, which a paper's caption is, and without raw keys."""
    token = _in_paper.set(True)
    try:
        yield
    finally:
        _in_paper.reset(token)


def title(axes: Axes, text: str) -> None:
    """Write the title of a figure, which none has in a paper."""
    if not _in_paper.get():
        axes.set_title(as_text(text))


def in_legend(key: str) -> str:
    """Return a key as the legend names it: as it is, in a paper in words."""
    return as_text(plain(key) if _in_paper.get() else key)


@contextmanager
def collected() -> Iterator[dict[str, Figure]]:
    """Yield what figures that are drawn meanwhile are put into by name; no file is written."""
    figures: dict[str, Figure] = {}
    token = _collected.set(figures)
    try:
        yield figures
    finally:
        _collected.reset(token)


def place_legend(figure: Figure, width: ColumnWidth) -> None:
    """Put the legend beside a wide figure and below a narrow one: it never covers a point."""
    if width == "double":
        figure.legend(loc="outside right upper")
    else:
        figure.legend(loc="outside lower center", ncols=2)


def objective_axis(axes: Axes, which: Literal["x", "y"], objective: Objective, values: pd.Series) -> None:
    """Label the axis of an objective; on a logarithmic scale, where it declares one, it has readable ticks."""
    log = objective.in_logs and len(values) > 0 and values.min() > 0
    getattr(axes, f"set_{which}label")(axis_label(objective.metric) + (", log scale" if log else ""))
    if log:
        log_ticks(axes, which, float(values.max() / values.min()))


def log_ticks(axes: Axes, which: Literal["x", "y"], span: float) -> None:
    """Make an axis logarithmic with ticks that suit ``span`` = highest / lowest value, written 200 k or 1 M."""
    getattr(axes, f"set_{which}scale")("log")
    steps: Any = (1, 1.5, 2, 3, 5, 7) if span < 4 else (1, 2, 5) if span < 300 else (1,)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(_Prefixed(sep=" "))
    axis.set_minor_formatter(NullFormatter())


class _Prefixed(EngFormatter):
    """200 k and 1 M; what is below 1,000 as it is: a ratio of 0.115 is not 115 m."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:.4g}" if abs(x) < 1000 else super().__call__(x, pos)


def as_text(text: str) -> str:
    """Return text that matplotlib shows as it is: ``$`` would start a formula."""
    return text.replace("$", r"\$")
