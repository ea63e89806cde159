"""Printing for people: tables and numbers with units. Nothing is computed here."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.status import Status
from rich.table import Table
from rich.text import Text

from routing.quantities import MULTIPLY_ADDS, count, find, heading, is_metric, ordered

_SILENT_SECONDS = 2.0
"""Time after which a long operation is named on the terminal."""
_BEAT_SECONDS = 30.0
"""Time between two lines on a long operation where there is no terminal."""
CONTEXT = {
    "trial": "trial",
    "model.name": "model",
    "model.router.mode": "router",
    "knob": "knob",
    "knob_value": "value",
}
"""Columns that identify an operating point, and their headings."""


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    title: str | None = None,
    keep: Collection[str] = (),
    wraps: Collection[str] = (),
) -> None:
    """Print rows under ``columns`` (key -> heading); a column without any value is left out.

    On a terminal the table fits its width: columns go, from the right, and are named below. Elsewhere all stay.

    Args:
        keep: columns that stay whatever the width; the first one always does.
        wraps: columns of text that take several lines on a terminal; others never do.
    """
    shown = {key: head for key, head in columns.items() if any(_given(row.get(key)) for row in rows)}
    console = Console(highlight=False)
    view, dropped = _view(rows, shown, wraps if console.is_terminal else ()), []
    if not console.is_terminal:
        console.width = max(console.width, _measured(view).maximum)
    for key in [key for key in list(shown)[:0:-1] if key not in keep]:
        if _measured(view).minimum <= console.width:
            break
        dropped.append(shown.pop(key))
        view = _view(rows, shown, wraps)
    if title:
        console.print(title, style="bold", markup=False)
    console.print(view)
    if dropped:
        console.print(f"no room for: {', '.join(reversed(dropped))}", style="dim", markup=False)


def _view(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], wraps: Collection[str]) -> Table:
    view = Table(box=None, pad_edge=False)
    for key, head in columns.items():
        numeric = all(isinstance(row.get(key), (int, float)) for row in rows if _given(row.get(key)))
        words = [text(key, row.get(key)) for row in rows]
        whole = None if key in wraps else max(map(cell_len, [head, *words]), default=0)  # it is never cropped
        view.add_column(head, justify="right" if numeric else "left", no_wrap=key not in wraps, min_width=whole)
    for row in rows:
        view.add_row(*(Text(text(key, row.get(key))) for key in columns))
    return view


def _measured(view: Table) -> Measurement:
    return Console(width=10_000).measure(view)


def point_columns(
    rows: Iterable[Iterable[str]], objectives: Sequence[str] = (), keys: Sequence[str] = ()
) -> dict[str, str]:
    """Return the headings of operating points: what ran, the objectives of a study, every other metric they have.

    Args:
        rows: the columns of each row.
        keys: further keys that tell what ran, those of a training script.
    """
    measured = [name for name in ordered(name for row in rows for name in row) if is_metric(name)]
    named = {"trial": CONTEXT["trial"], **{key: key for key in keys if key not in CONTEXT}}
    return {**named, **CONTEXT} | {name: heading(name) for name in dict.fromkeys([*objectives, *measured])}


def say(line: str) -> None:
    """Print one line as it is."""
    Console(highlight=False, soft_wrap=True).print(line, markup=False)


class Phase:
    """Says on standard error what takes its time: a spinner on a terminal, a line elsewhere once 2 s have passed.

    Used as a context; ``stop`` ends it before the context does, so that another view can take the terminal.
    """

    def __init__(self, text: str) -> None:
        self._text, self._stream = text, sys.stderr
        self._status: Status | None = None
        self._timer: threading.Timer | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Phase:
        console = Console(file=self._stream, highlight=False)
        if console.is_interactive:
            self._status = console.status(Text(f"{self._text} ..."), spinner="line", refresh_per_second=4)
            self._status.start()
        else:
            self._timer = threading.Timer(_SILENT_SECONDS, print, [f"{self._text} ..."], {"file": self._stream})
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def update(self, text: str) -> None:
        """Say how far it is; after ``stop``, as well: on a terminal at once, elsewhere in a line now and then."""
        if self._status is not None:
            self._status.update(Text(f"{text} ..."))
            self._status.start()
        elif time.monotonic() - self._said > _BEAT_SECONDS:
            self._said = time.monotonic()
            print(f"{text} ...", file=self._stream)

    def stop(self) -> None:
        """End the phase; nothing of a spinner stays."""
        if self._status is not None:
            self._status.stop()
        if self._timer is not None:
            self._timer.cancel()


def duration(seconds: float) -> str:
    """Return seconds as a person writes them: ``45 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _given(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def text(key: str, value: Any) -> str:
    """Return a value as a person reads it: multiply-adds as everywhere, shares with four digits."""
    if not _given(value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        known = find(key)
        if known is not None and known.unit == MULTIPLY_ADDS:
            return count(float(value))
        if isinstance(value, float) and not value.is_integer():
            return f"{value:.4g}" if abs(value) >= 10 else f"{value:.4f}"
        return f"{value:,.0f}"
    return str(value)
