"""The figures of a results folder as methods, one per figure: nothing is written."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.figures.drawing import collected
from analysis.figures.parameters import KNOB_CURVES
from analysis.figures.which import draw_all
from analysis.findings.ablation import compare_arms
from analysis.findings.confirmed import error_bars, read_confirmed
from analysis.findings.importance import importances
from analysis.words.words import axis_label, scale
from routing.errors import InputError, choices

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as Chart


class FigureMethods:
    """Draws a summary; every method returns a Figure of matplotlib but ``plotly_front``."""

    folder: Path
    _summary: Any  # a Summary, read when it is first asked for

    @cached_property
    def _figures(self) -> dict[str, Figure]:
        results = self._summary.results
        with collected() as figures:
            draw_all(
                self._summary, ("png",), self.folder,
                compared=compare_arms(results), confirmed=error_bars(read_confirmed(results), results),
                importance=importances(results),
            )  # fmt: skip
        return figures

    def figures(self) -> dict[str, Figure]:
        """Return every figure that this study has something for, by name."""
        return dict(self._figures)

    def _figure(self, name: str) -> Figure:
        if name not in self._figures:
            raise InputError(f"{self.folder}: nothing to draw as {name} (valid: {choices(self._figures)})")
        return self._figures[name]

    def plot_front(self) -> Figure:
        """Draw all points, the front and its knee."""
        return self._figure("front")

    def plot_hypervolume(self) -> Figure:
        """Draw the hypervolume as trials finish."""
        return self._figure("hypervolume")

    def plot_forest(self) -> Figure:
        """Draw the differences of an ablation with their intervals."""
        return self._figure("forest")

    def plot_slices(self) -> Figure:
        """Draw the first objective over every key."""
        return self._figure("slices")

    def plot_grid_size(self) -> Figure:
        """Draw the first objective and multiply-adds over the patches per side."""
        return self._figure("grid_size")

    def plot_knob_curve(self, knob: str | None = None) -> Figure:
        """Draw the first objective of every trained model along its knob.

        Args:
            knob: its name, as ``points`` has it; needed where trials have several.

        Raises:
            InputError: no trial has such a knob, or there are several.
        """
        known = [name.removeprefix(KNOB_CURVES) for name in self._figures if name.startswith(KNOB_CURVES)]
        if knob is None and len(known) != 1:
            which = (
                f"which knob? (valid: {choices(known)})" if known else "no trial has a knob with three values or more"
            )
            raise InputError(f"{self.folder}: {which}")
        return self._figure(f"{KNOB_CURVES}{known[0] if knob is None else knob}")

    def plot_parallel(self) -> Figure:
        """Draw the trials as lines through their keys."""
        return self._figure("parallel")

    def plot_importance(self) -> Figure:
        """Draw how much each key matters."""
        return self._figure("importance")

    def plotly_front(self) -> Chart:
        """Return the points as an interactive chart, the front as a line."""
        from plotly.graph_objects import Figure as Chart

        results = self._summary.results
        if len(results.objectives) < 2:
            raise InputError(
                f"{self.folder}: a front has two objectives; this study has {results.objectives[0].metric} only"
            )
        task, cost = (objective.metric for objective in results.objectives[:2])
        y_type, x_type = ("log" if objective.in_logs else "linear" for objective in results.objectives[:2])
        chart = Chart()
        for name, table, mode in (
            ("points", results.points, "markers"),
            ("front", self._summary.front, "lines+markers"),
        ):
            texts = [f"trial {number}" for number in table["trial"]]
            y = table[task] * scale(task)
            chart.add_scatter(x=table[cost], y=y, mode=mode, name=name, text=texts)
        chart.update_layout(
            xaxis={"title": axis_label(cost), "type": x_type}, yaxis={"title": axis_label(task), "type": y_type}
        )
        return chart
