"""Take a point of a results folder away: a config that reproduces it, the trained weights, and a card."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.card import card
from analysis.configs import knob_value
from analysis.objectives import losses
from analysis.summary import Summary, summarise
from analysis.table import Results, default_points, read_results
from routing.config import RunConfig
from routing.errors import InputError, choices, nearest
from routing.record import CONFIG_FILE, MODEL_FILE, write_text

CARD_FILE = "card.md"
PICKS = ("knee", "best", "budget=FLOPS", "trial=ID")


def export(results: str | Path, picks: Sequence[str] = ("knee",), out: str | Path | None = None) -> list[Path]:
    """Write one folder per pick: config.yaml, model.safetensors (if the trial kept it) and card.md.

    Args:
        results: a results folder.
        picks: ``knee``, ``best`` (first objective), ``budget=FLOPS`` (best at that compute or less), ``trial=ID``.
        out: where the folders go; ``RESULTS/best`` when None.

    Raises:
        InputError: an unknown pick, or one that no point satisfies.
    """
    summary = summarise(read_results(results))
    chosen = {pick: choose(summary, pick) for pick in dict.fromkeys(picks)}
    target = summary.results.folder / "best" if out is None else Path(out)
    return [_write(summary, pick, row, target / pick) for pick, row in chosen.items()]


def choose(summary: Summary, pick: str) -> pd.Series:
    """Return the row of points.csv that a pick names."""
    kind, equals, text = pick.partition("=")
    if pick in ("knee", "best"):
        row = summary.knee_row if pick == "knee" else summary.best_row
        if row is None:
            raise InputError(f"{summary.results.folder}: no finished trial to export yet")
        return row
    if kind == "budget" and equals:
        return _within(summary.results, "flops", _number(pick, text))
    if kind == "trial" and equals:
        return _default_point(summary.results, _number(pick, text))
    raise InputError(f"unknown pick '{pick}'{nearest(pick, PICKS)} (valid: {choices(PICKS)})")


def _number(pick: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--pick {pick}: '{text}' is not a number") from None


def _within(results: Results, column: str, limit: float) -> pd.Series:
    """Return the best point by the first objective whose cost is within the limit."""
    points = results.points
    affordable = points[points[column] <= limit]
    if affordable.empty:
        cheapest = f"; the cheapest point has {points[column].min():.6g}" if len(points) else ""
        raise InputError(f"{results.folder}: no point has {column} <= {limit:.6g}{cheapest}")
    vectors = losses(affordable, results.objectives)
    order = pd.DataFrame(vectors).sort_values(list(range(vectors.shape[1])), kind="stable").index
    return affordable.iloc[order[0]]


def _default_point(results: Results, number: float) -> pd.Series:
    own = results.points[results.points["trial"] == number]
    if own.empty:
        numbers = sorted(set(results.points["trial"]))
        valid = choices(numbers) if len(numbers) <= 20 else f"{numbers[0]} to {numbers[-1]}"
        raise InputError(f"{results.folder}: trial {number:g} has no finished point (valid: {valid or 'none yet'})")
    default = own[default_points(own)]
    return (default if len(default) else own).iloc[0]


def point_config(results: Results, row: pd.Series) -> RunConfig:
    """Return the run that gives this point when trained again, its knob set to the point's value."""
    config = RunConfig.from_yaml(results.trial_folder(int(row["trial"])) / CONFIG_FILE)
    if bool(default_points(row.to_frame().T).iloc[0]):
        return config
    return config.replace(**{"evaluation.knob_value": knob_value(row["knob_value"])})


def _write(summary: Summary, pick: str, row: pd.Series, folder: Path) -> Path:
    config = point_config(summary.results, row)
    model = summary.results.trial_folder(int(row["trial"])) / MODEL_FILE
    write_text(folder / CONFIG_FILE, config.to_yaml())
    (folder / MODEL_FILE).unlink(missing_ok=True)
    if model.exists():
        shutil.copyfile(model, folder / MODEL_FILE)
    write_text(folder / CARD_FILE, card(summary, pick, row, config, has_model=model.exists()))
    return folder
