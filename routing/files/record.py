"""The record of one run: ``TrialRecord`` in memory; config.yaml, history.csv and metrics.json on disk.

Every file is replaced in one step (write beside, then rename), so that a reader never sees half of one.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routing.errors import InputError
from routing.files.atomic import write_json, write_text
from routing.files.results_folder import CONFIG_FILE, HISTORY_FILE, METRICS_FILE

if TYPE_CHECKING:
    from routing.config.run import RunConfig


@dataclass(frozen=True)
class OperatingPoint:
    """One trained model at one value of its compute knob.

    ``flops`` are multiply-adds per image: mean over the validation images of what was executed, with its 5th and
    95th percentile over images. ``metrics`` are of the validation split (``val_accuracy``, say). ``knob_value`` is a
    number, or text for a knob of several settings (``k_anchors=10,top_m=20``).
    """

    knob: str
    knob_value: float | str | None
    is_default: bool
    flops: float
    flops_p5: float
    flops_p95: float
    params: int
    metrics: dict[str, float]
    routing_ratio: float | None = None

    def row(self) -> dict[str, Any]:
        """Return the point as one flat row, metrics spread over their own columns."""
        values = asdict(self)
        metrics = values.pop("metrics")
        return {**values, **metrics}


@dataclass
class TrialRecord:
    """Everything measured in one run.

    ``metrics`` are the scalars of the default operating point after the last epoch (``val_accuracy``, ``flops``,
    ``routing_ratio``, ``params``, ``epochs``, ``train_seconds``, ...); ``history`` has one row per epoch (numbers, and
    the name of its ``phase``);
    ``certificate`` says whether the router works (None for a model without one).
    """

    config: RunConfig
    metrics: dict[str, float]
    points: list[OperatingPoint] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    certificate: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write config.yaml, history.csv and metrics.json into ``folder``."""
        write_text(folder / CONFIG_FILE, self.config.to_yaml())
        write_history(folder, self.history)
        content = {
            "metrics": self.metrics,
            "points": [point.row() for point in self.points],
            "certificate": self.certificate,
        }
        write_json(folder / METRICS_FILE, content)


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write history.csv: one row per epoch, the union of all columns in order of first appearance."""
    columns = list(dict.fromkeys(column for row in history for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(folder / HISTORY_FILE, text.getvalue())


def read_history(folder: Path) -> list[dict[str, float]]:
    """Return history.csv, numbers only; an empty list where a run has none.

    Raises:
        InputError: it is not CSV in UTF-8.
    """
    path = folder / HISTORY_FILE
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not CSV in UTF-8: {error}") from None
    return [{key: float(value) for key, value in row.items() if _is_number(value)} for row in rows]


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return metrics.json of a finished run; missing or garbage is an ``InputError`` naming the file."""
    path = folder / METRICS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the run has not finished") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable metrics file: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict):
        raise InputError(f"{path}: not a metrics file: it has no 'metrics'")
    points = content.get("points", [])
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise InputError(f"{path}: not a metrics file: its 'points' are no list of mappings")
    return content
