"""``confirm``: the front again under fresh seeds, and the test split read once.

A point that won among hundreds won partly by luck of its seed and of the validation images. Here every configuration on
the front is trained again; what its points then reach on validation and test images is what they are worth.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from routing.config import RunConfig
from routing.errors import InputError
from routing.record import OperatingPoint, TrialRecord, read_metrics
from routing.yaml_io import load_file
from search_spaces.collect import POINTS_FILE, write_table
from search_spaces.load import load_study, parse_study
from search_spaces.results import trial_folder
from search_spaces.schema import Study
from search_spaces.tune import sweep

CONFIRM_FOLDER = "confirm"
CONFIRM_FILE = "confirm.csv"
FRONT_FILE = "front.csv"
RUN = "search_spaces.confirmation:train_and_test"
_RESAMPLES = 10_000
_LEVEL = 0.95


def confirm(
    results: str | os.PathLike[str],
    seeds: int = 5,
    *,
    concurrency: int | None = None,
    address: str | None = None,
    time_budget: float | str | None = None,
    run: str = RUN,
) -> Path:
    """Train the configurations on the front of ``results`` under fresh seeds and write ``results/confirm``.

    Called again, it goes on where it stopped; with more seeds it adds them.

    Args:
        results: results folder of a sweep with its front.csv (``routing analyze`` writes it).
        seeds: trainings per configuration, under seeds the study has not used.
        concurrency, address, time_budget, run: as in ``sweep``.

    Raises:
        InputError: no front there, no test split, or fewer than two seeds.
    """
    folder = Path(results)
    if seeds < 2:
        raise InputError(f"seeds must be at least 2, not {seeds}: one training has no interval")
    study = load_study(_study_file(folder))
    front = _read_front(folder)
    declared = confirmation_study(folder, study, front, seeds)
    if run == RUN:  # before hours of training: is there a test split at all?
        _config(folder, int(front["trial"][0])).dataset.load()["test"]
    out = folder / CONFIRM_FOLDER
    sweep(
        declared,
        out,
        resume=True,
        concurrency=concurrency,
        address=address,
        time_budget=time_budget,
        run=run,
        force=True,
    )
    write_confirmed(out, front, pd.read_csv(out / POINTS_FILE), [o.metric for o in study.objectives])
    return out


def confirmation_study(folder: Path, study: Study, front: pd.DataFrame, seeds: int) -> Study:
    """Return the ablation whose arms are the distinct configurations on the front, named after their trials."""
    arms: dict[str, dict[str, Any]] = {}
    used = set()
    for number in dict.fromkeys(int(trial) for trial in front["trial"]):
        config = _config(folder, number)
        used.add(config.seed)
        settings = {key: value for key, value in config.dotted().items() if key != "seed"}
        if settings not in arms.values():
            arms[str(number)] = settings
    first = max(used) + 1
    values = {
        "kind": "ablation",
        "name": f"{study.name}-confirm",
        "question": f"What does the front of {study.name} reach under fresh seeds, on images nobody chose by?",
        "design": "arms",
        "factors": {"trial": arms},
        "seeds": list(range(first, first + seeds)),
        "objectives": [objective.model_dump(mode="json") for objective in study.objectives],
        "resources": study.resources.model_dump(mode="json"),
        "trial_timeout": study.trial_timeout,
    }
    return parse_study(values, f"{folder}: front")


def _config(folder: Path, number: int) -> RunConfig:
    return RunConfig.from_dict(load_file(trial_folder(folder, number) / "config.yaml")[0])


def train_and_test(config: RunConfig, report: Callable[[dict[str, float]], None] | None, out: Path) -> TrialRecord:
    """Train a run, then evaluate its operating points on the test split; the run of ``confirm``'s workers."""
    from routing.run import run
    from routing.saved import save_evaluation

    record = run(config, report, out)
    save_evaluation(out, "test", points_on_test_split(out, record.points))
    return record


def points_on_test_split(out: Path, points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Return the operating points of a saved run on the test split, at the knob values of the validation split."""
    from routing.run import make_evaluator
    from routing.saved import load
    from routing.training.seeding import pick_device

    saved = load(out)
    evaluator = make_evaluator(saved.config, saved.config.dataset.load(), "test", pick_device(saved.config.device))
    evaluations = [evaluator.run(saved.model)]
    if len(points) > 1:
        values = [point.knob_value for point in points[1:] if point.knob_value is not None]
        evaluations += evaluator.along_knob(saved.model, values)
    return [
        evaluation.point(point.knob, point.knob_value, point.is_default, point.params, "test")
        for evaluation, point in zip(evaluations, points, strict=True)
    ]


def write_confirmed(out: Path, front: pd.DataFrame, points: pd.DataFrame, objectives: Sequence[str]) -> None:
    """Write confirm.csv: a row per point of the front, with n, mean and interval of every metric over fresh seeds.

    ``<metric>_mean``, ``_low``, ``_high``: mean over seeds and its 95 % bootstrap interval (percentiles of the means of
    10,000 resamples of the seeds). ``selected_<metric>``: the value by which the point was chosen.
    ``winners_curse``: selected value minus mean on the test split.
    """
    rows = []
    random = np.random.default_rng(0)
    for _, chosen in front.iterrows():
        own = points[points["arm"].astype(str) == str(int(chosen["trial"]))]
        matched = [match(chosen, group) for _, group in own.groupby("seed")]
        found = pd.DataFrame([row for row in matched if row is not None])
        rows.append(_summary(chosen, found, objectives, random))
    write_table(out / CONFIRM_FILE, rows)


def match(chosen: pd.Series, points: pd.DataFrame) -> pd.Series | None:
    """Return the row of one training that stands for a point of the front.

    The default point stands for a default point, the same knob value for a knob value; where a retrained model has
    other values (a threshold is chosen on the scores of its model), the point of the nearest cost.
    """
    if points.empty:
        return None
    if bool(chosen["is_default"]):
        defaults = points[points["is_default"].astype(bool)]
        return defaults.iloc[0] if len(defaults) else None
    same = points[points["knob_value"].astype(str) == str(chosen["knob_value"])]
    if len(same):
        return same.iloc[0]
    distance = (np.log(points["flops"].clip(lower=1e-12)) - np.log(max(chosen["flops"], 1e-12))).abs()
    return points.loc[distance.idxmin()]


def _summary(
    chosen: pd.Series, found: pd.DataFrame, objectives: Sequence[str], random: np.random.Generator
) -> dict[str, Any]:
    row: dict[str, Any] = {key: chosen[key] for key in ("trial", "knob", "knob_value", "is_default") if key in chosen}
    row["n"] = len(found)
    wanted = [c for c in points_metrics(found, objectives) if c in found]
    for metric in wanted:
        values = pd.to_numeric(found[metric], errors="coerce").dropna().to_numpy(dtype=float)
        if len(values):
            low, high = bootstrap_interval(values, random)
            row |= {f"{metric}_mean": float(values.mean()), f"{metric}_low": low, f"{metric}_high": high}
    task = objectives[0]
    row[f"selected_{task}"] = float(chosen[task])
    test = task.replace("val_", "test_", 1)
    if f"{test}_mean" in row:
        row["winners_curse"] = row[f"selected_{task}"] - row[f"{test}_mean"]
    names = [key for key in chosen.index if "." in str(key) and not pd.isna(chosen[key])]
    return {**row, **{str(key): chosen[key] for key in names}}


def points_metrics(found: pd.DataFrame, objectives: Sequence[str]) -> list[str]:
    """Return the metrics to summarise: the objectives, those of the test split, and the realised routing ratio."""
    tests = [str(column) for column in found if str(column).startswith("test_")]
    return list(dict.fromkeys([*objectives, *tests, "routing_ratio"]))


def bootstrap_interval(values: np.ndarray, random: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of ``values`` (n,) under resampling."""
    means = random.choice(values, size=(_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _study_file(folder: Path) -> Path:
    if not (folder / "study.yaml").is_file():
        raise InputError(f"{folder} is no results folder; it has no study.yaml")
    return folder / "study.yaml"


def _read_front(folder: Path) -> pd.DataFrame:
    path = folder / FRONT_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; `routing analyze {folder}` writes it")
    try:
        front = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable: {str(error).splitlines()[0]}") from None
    if front.empty or "trial" not in front:
        raise InputError(f"{path}: no points; nothing to confirm")
    for number in front["trial"]:
        read_metrics(trial_folder(folder, int(number)))
    return front
