"""``StudyResults`` (``routing.Results``): a results folder as an object, for a notebook or a program."""

from __future__ import annotations

import html
import time
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.exports.export import export_point, load_point
from analysis.findings.ablation import compare_arms
from analysis.findings.confirmed import read_confirmed
from analysis.findings.picks import choose, within
from analysis.findings.summary import Summary, summarise
from analysis.opened.figures import FigureMethods
from analysis.opened.watching import in_place
from analysis.read.configs import naming_keys
from analysis.read.results import read_results
from analysis.words.words import shown
from routing.errors import InputError
from routing.files.activity import is_under_way
from routing.files.results_folder import RUNNING, WAITING

if TYPE_CHECKING:
    from routing.saved import SavedRun


class StudyResults(FigureMethods):
    """A results folder, read once; ``refresh`` reads it again.

    Args:
        folder: of a sweep or an ablation, which may still be running.

    Raises:
        InputError: no results folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._summary  # noqa: B018  # a folder that is none is said now

    @cached_property
    def _summary(self) -> Summary:
        return summarise(read_results(self.folder))

    def refresh(self) -> StudyResults:
        """Read the folder again; return the object itself."""
        for name in ("_summary", "_figures"):
            self.__dict__.pop(name, None)
        return self

    @property
    def study(self) -> dict[str, Any]:
        """The resolved study file."""
        return self._summary.results.study

    @property
    def trials(self) -> pd.DataFrame:
        """A row per trial in every state: the columns of trials.csv."""
        return self._summary.results.trials

    @property
    def points(self) -> pd.DataFrame:
        """A row per operating point: the columns of points.csv."""
        return self._summary.results.points

    @property
    def front(self) -> pd.DataFrame:
        """The rows of ``points`` on the front, ordered by cost; they keep their index."""
        return self._summary.front

    @property
    def confirmed(self) -> pd.DataFrame:
        """The columns of confirm/confirm.csv; empty before ``confirm``."""
        return read_confirmed(self._summary.results)

    @property
    def ablation(self) -> pd.DataFrame:
        """A row per arm of an ablation: its difference to the baseline with its interval; empty of a sweep."""
        found = compare_arms(self._summary.results)
        return pd.DataFrame() if found is None else found

    @property
    def knee(self) -> pd.Series | None:
        """The point of the front where more of one objective costs most of the other; None without a front."""
        return self._summary.knee_row

    @property
    def best(self) -> pd.Series | None:
        """The best point by the first objective; None without a front."""
        return self._summary.best_row

    @property
    def problems(self) -> list[str]:
        """What was missing or damaged, a line each."""
        return self._summary.results.problems

    def pick(self, name: str | None = None, **limits: float) -> pd.Series:
        """Return one point.

        Args:
            name: ``knee`` or ``best``, or another pick of the command line.
            limits: one of ``flops=4e5`` (the best at that cost or less; any other cost of the points alike),
                ``latency_ms=1`` (the best of the front that is as fast, measured here), ``accuracy=0.93`` (the cheapest
                that reaches it; any other metric of the task alike), ``trial=17`` (at its own setting).

        Raises:
            InputError: no such point.
        """
        if (name is None) == (not limits) or len(limits) > 1:
            raise InputError("pick: one of 'knee', 'best', flops=, latency_ms=, accuracy=, trial=")
        if name is not None:
            return self._chosen(name)
        ((key, limit),) = limits.items()
        if isinstance(limit, bool) or not isinstance(limit, Real):
            raise InputError(f"pick: {key}={limit!r} is no number (valid: {key}=NUMBER)")
        if key in ("trial", "latency_ms"):
            return self._chosen(f"{key.removesuffix('_ms')}={limit:g}")
        return within(self._summary.results, key, limit)

    def _chosen(self, pick: str) -> pd.Series:
        from analysis.exports.export import latency

        return choose(self._summary, pick, lambda row: latency(self._summary, row))

    def model(self, point: pd.Series | str = "knee") -> SavedRun:
        """Return the trained model of a point (a row, or a pick), its knob set, ready to ``predict``."""
        return load_point(self._summary.results, self._row(point))

    def export(
        self,
        point: pd.Series | str = "knee",
        out: str | Path | None = None,
        *,
        onnx: bool = False,
        torch_export: bool = False,
    ) -> Path:
        """Write config, weights and card of a point, as ``routing export`` does; return the folder."""
        formats = [name for name, wanted in (("onnx", onnx), ("torch_export", torch_export)) if wanted]
        row = self._row(point)
        name = point if isinstance(point, str) else f"point-{row.name}"
        return export_point(self._summary, name, row, None if out is None else Path(out), formats)

    def _row(self, point: pd.Series | str) -> pd.Series:
        return self.pick(point) if isinstance(point, str) else point

    def watch(self, every: float = 2.0, timeout: float | None = None) -> StudyResults:
        """Show the state of a running sweep until its driver has ended, in a notebook in place.

        A driver on another machine counts as ended when the folder has not changed for two minutes.

        Args:
            every: seconds between two looks.
            timeout: seconds after which to end.
        """
        show = in_place()
        started = time.monotonic()
        while True:
            # asked before the folder is read: the last look shows the end
            under_way = is_under_way(self.folder, self._has_unfinished)
            show(self.refresh())
            if not under_way or (timeout is not None and time.monotonic() - started >= timeout):
                return self
            time.sleep(every)

    def _has_unfinished(self) -> bool:
        return bool(self.refresh().trials["state"].isin((RUNNING, WAITING)).any())

    def words(self) -> str:
        """Return the state in one line."""
        states = ", ".join(f"{count} {state.lower()}" for state, count in self._summary.states.items()) or "no trial"
        best, objectives = self.best, self._summary.results.objectives
        values = "" if best is None else ", ".join(f"{o.metric} {shown(o.metric, best[o.metric])}" for o in objectives)
        return f"{self._summary.results.name}: {states}" + (f"; best {values}" if values else "")

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r}): {self.words()}"

    def _repr_html_(self) -> str:
        columns = [*naming_keys(self.trials), "knob_value", *(o.metric for o in self._summary.results.objectives)]
        front = self.front[["trial", *(c for c in columns if c in self.front and self.front[c].notna().any())]]
        return f"<p>{html.escape(self.words())}</p>{front.head(20).to_html(index=False)}"
