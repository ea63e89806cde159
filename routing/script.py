"""A run of a training script of the user's: what it reports and returns, as the files of any other run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from routing.command import run_command
from routing.config.script import ScriptRun, called, function, read_run
from routing.errors import InputError, TrialFailed, shown
from routing.files.atomic import write_json, write_text
from routing.files.record import read_history, write_history
from routing.files.results_folder import CONFIG_FILE, METRICS_FILE, SCRIPT_FOLDER

Report = Callable[[dict[str, Any]], None]


def run(config: ScriptRun, report: Report | None = None, out: Path | None = None) -> dict[str, Any]:
    """Run a script and return its metrics.

    Args:
        config: the run.
        report: called with every row that the script reports; an exception it raises ends the run.
        out: folder for config.yaml, history.csv and metrics.json; the script has ``out/out`` to itself.

    Raises:
        TrialFailed: a command fails, or a metric is missing or no number.
        InputError: the script cannot be imported or called.
    """
    metrics, content = train(config, report, out)
    if out is not None:
        write_json(out / METRICS_FILE, content)
    return metrics


def train(config: ScriptRun, report: Report | None, out: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metrics, and the content of metrics.json, which is not yet written."""
    folder = own_folder(out)
    started, earlier = time.perf_counter(), _history(config, out)
    history: list[dict[str, Any]] = []

    def on_report(step: int, /, **metrics: Any) -> None:
        if isinstance(step, bool) or not isinstance(step, int) or (history and step <= history[-1]["epoch"]):
            raise TrialFailed(f"report: step {step!r} (valid: whole numbers, each above the one before)")
        if not history:  # the script goes on where it likes after an interruption
            history.extend(row for row in earlier if row["epoch"] < step)
        row = {"epoch": step, **_numbers(metrics, f"report of step {step}")}
        history.append({"train_seconds": before + time.perf_counter() - started, **row})
        if out is not None:
            write_history(out, history)
        if report is not None:
            report(history[-1])

    before = earlier[-1]["train_seconds"] if earlier else 0.0
    if out is not None:
        write_text(out / CONFIG_FILE, config.to_yaml())
    if config.run is not None:
        result = called(
            function(config.run, "run"), dict(config.config), {"report": on_report, "seed": config.seed, "out": folder}
        )
    else:
        result = run_command(config, folder, on_report)
    if not isinstance(result, Mapping):
        raise TrialFailed(f"{config.script}: it returns {shown(result)}, not a dict of metrics")
    given = dict(result)
    points = given.pop("points", [])
    metrics = {"train_seconds": time.perf_counter() - started, **_numbers(given, config.script)}
    metrics["epochs"] = history[-1]["epoch"] if history else config.steps or 1
    rows = [{"knob": "", "knob_value": None, "is_default": True, **_of_point(metrics)}, *map(_point, points)]
    missing = [name for name in config.metrics if name not in metrics]
    if missing:
        raise TrialFailed(f"{config.script}: it returns no '{missing[0]}', which is an objective of the study")
    return metrics, {"metrics": metrics, "points": rows, "certificate": None}


def evaluate(config: ScriptRun, points: list[dict[str, Any]], out: Path) -> list[dict[str, Any]]:
    """Return the default point of a run with what ``evaluate`` says of the test split, as ``test_*``."""
    assert config.evaluate is not None
    found = function(config.evaluate, "evaluate", ("seed", "out"))
    result = called(found, dict(config.config), {"seed": config.seed, "out": own_folder(out)})
    if not isinstance(result, Mapping):
        raise TrialFailed(f"{config.evaluate}: it returns {shown(result)}, not a dict of metrics")
    numbers = _numbers(result, config.evaluate)
    tested = {f"test_{name.removeprefix('val_').removeprefix('test_')}": value for name, value in numbers.items()}
    return [{**points[0], **tested}]


def _history(config: ScriptRun, out: Path | None) -> list[dict[str, Any]]:
    """Return what this very run has reported before it was interrupted."""
    if out is None or not (out / CONFIG_FILE).is_file():
        return []
    try:
        return list(read_history(out)) if read_run(out / CONFIG_FILE).is_same_run(config) else []
    except InputError:
        return []


def own_folder(out: Path | None) -> Path:
    """Return the folder that a script has to itself; it is there also after an interruption."""
    if out is None:
        raise InputError("a run of a script needs a folder: out=")
    folder = out / SCRIPT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _numbers(values: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return metrics as numbers; text is kept as it is, what is neither is an error."""
    return {str(name): _number(name, value, where) for name, value in values.items()}


def _number(name: Any, value: Any, where: str) -> float | str:
    if isinstance(value, str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise TrialFailed(f"{where}: {name} is {shown(value)}, not a number")
    return number


def _of_point(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in ("train_seconds", "epochs")}


def _point(point: Any) -> dict[str, Any]:
    if not isinstance(point, Mapping) or not {"knob", "knob_value"} <= set(point):
        raise TrialFailed(f"points: {shown(point)} (valid: {{'knob': name, 'knob_value': value, metric: number, ...}})")
    return {**_numbers(point, "points"), "is_default": False}
