"""``confirm``: the front again under fresh seeds, and the test split read once.

A point selected among hundreds was partly lucky with its seed and the validation images. Here every configuration on
the front is trained again under fresh seeds; its values on the test images are then free of this selection bias.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from routing.config.run import RunConfig
from routing.config.script import AnyRun, ScriptRun, read_run
from routing.errors import InputError, RoutingError
from routing.files.atomic import write_json
from routing.files.links import check_links
from routing.files.record import OperatingPoint, TrialRecord, read_metrics
from routing.files.results_folder import (
    ARM,
    CONFIG_FILE,
    CONFIRM_FILE,
    CONFIRM_FOLDER,
    FRONT_FILE,
    HIGH,
    LOW,
    MEAN,
    METRICS_FILE,
    OPERATING_POINT,
    POINTS_FILE,
    SELECTED,
    STUDY_FILE,
    TEST_FILE,
    TRIALS_FILE,
    WINNERS_CURSE,
    trial_folder,
)
from routing.intervals import mean_interval
from routing.objectives import Objective
from routing.quantities import on_split, split_of
from search_spaces.ledger.tables import write_table
from search_spaces.signals import GO_ON
from search_spaces.study.load import load_study, parse_study
from search_spaces.study.schema import MAX_NAME, Study
from search_spaces.study.script import SCRIPT_KEYS, ScriptStudy
from search_spaces.tune import sweep

RUN = "search_spaces.confirmation:train_and_test"
_SUFFIX = "-confirm"
_TEXTS = {"knob_value": str}
"""Read as text: a threshold has 17 digits, and two points may differ in the last one only."""


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
    check_links(folder)
    front = _read_front(folder)
    arms = distinct_configurations(folder, front)
    declared = confirmation_study(folder, study, arms, seeds)
    if run == RUN:  # before hours of training: is there a test split at all?
        runs = [_config(folder, number) for number in arms]
        datasets = {run.dataset.model_dump_json(): run.dataset for run in runs if isinstance(run, RunConfig)}
        for dataset in datasets.values():
            dataset.load()["test"]
    out = folder / CONFIRM_FOLDER
    try:
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
    except RoutingError as error:
        error.args = (str(error).replace(GO_ON, "the same command goes on"),)
        raise
    write_confirmed(out, front, pd.read_csv(out / POINTS_FILE, dtype=_TEXTS), study.objectives, arms)
    return out


def distinct_configurations(folder: Path, front: pd.DataFrame) -> dict[int, int]:
    """Return every trial on the front with the trial that stands for it: the first of the same configuration."""
    first: dict[str, int] = {}
    arms = {}
    for number in dict.fromkeys(int(trial) for trial in front["trial"]):
        arms[number] = first.setdefault(json.dumps(_settings(folder, number), sort_keys=True), number)
    return arms


def confirmation_study(folder: Path, study: Study, arms: dict[int, int], seeds: int) -> Study:
    """Return the ablation whose arms are the distinct configurations on the front, named after their trials."""
    first = max(_seeds_used(folder, list(arms))) + 1
    values = {
        "kind": "ablation",
        "name": study.name[: MAX_NAME - len(_SUFFIX)] + _SUFFIX,
        "question": f"What does the front of {study.name} reach under fresh seeds, on images not used for selection?",
        "design": "arms",
        "factors": {"trial": {str(number): _settings(folder, number) for number in dict.fromkeys(arms.values())}},
        "seeds": list(range(first, first + seeds)),
        "objectives": [objective.model_dump(mode="json") for objective in study.objectives],
        "resources": study.resources.model_dump(mode="json"),
        "trial_timeout": study.trial_timeout,
    }
    if isinstance(study, ScriptStudy):
        values |= study.model_dump(mode="json", include=SCRIPT_KEYS, exclude_none=True)
    return parse_study(values, f"{folder}: front")


def _settings(folder: Path, number: int) -> dict[str, Any]:
    return {key: value for key, value in _config(folder, number).dotted().items() if key != "seed"}


def _seeds_used(folder: Path, on_front: Sequence[int]) -> set[int]:
    """Return the seeds of every trial of the study: also those off the front have taken part in the choice."""
    used = {_config(folder, number).seed for number in on_front}
    try:
        seeds = pd.read_csv(folder / TRIALS_FILE)["seed"]
    except (OSError, ValueError, KeyError):
        return used
    return used | {int(seed) for seed in pd.to_numeric(seeds, errors="coerce").dropna()}


def _config(folder: Path, number: int) -> AnyRun:
    return read_run(trial_folder(folder, number) / CONFIG_FILE)


def train_and_test(config: AnyRun, report: Callable[[dict[str, float]], None] | None, out: Path) -> Any:
    """Train a run and evaluate its operating points on the test split; the run of ``confirm``'s workers."""
    if isinstance(config, ScriptRun):
        return _train_and_test_script(config, report, out)
    from routing.runner import run

    def test(record: TrialRecord) -> None:
        write_json(out / TEST_FILE, {"points": [point.row() for point in points_on_test_split(out, record.points)]})

    return run(config, report, out, before_record=test)


def _train_and_test_script(
    config: ScriptRun, report: Callable[[dict[str, float]], None] | None, out: Path
) -> dict[str, Any]:
    from routing.script import evaluate, train

    metrics, content = train(config, report, out)
    if config.evaluate is not None:
        write_json(out / TEST_FILE, {"points": evaluate(config, content["points"], out)})
    write_json(out / METRICS_FILE, content)
    return metrics


def points_on_test_split(out: Path, points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Return the operating points of a saved run on the test split, at the knob values of the validation split."""
    from routing.runner import make_evaluator
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


def write_confirmed(
    out: Path, front: pd.DataFrame, points: pd.DataFrame, objectives: Sequence[Objective], arms: dict[int, int]
) -> None:
    """Write confirm.csv: a row per point of the front, with n, mean and interval of every metric over fresh seeds.

    ``<metric>_mean``, ``_low``, ``_high``: mean over seeds and its 95 % interval (Student's t). ``selected_<metric>``:
    the value by which the point was chosen. ``winners_curse``: that value minus the mean on the test
    split.

    Args:
        arms: trial on the front -> the trial of the same configuration that was trained again.
    """
    rows = []
    for _, chosen in front.iterrows():
        own = points[points[ARM].astype(str) == str(arms[int(chosen["trial"])])]
        matched = [match(chosen, group) for _, group in own.groupby("seed")]
        rows.append(_summary(chosen, pd.DataFrame([row for row in matched if row is not None]), objectives))
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
    if "flops" not in points:  # of a script
        return None
    distance = (np.log(points["flops"].clip(lower=1e-12)) - np.log(max(chosen["flops"], 1e-12))).abs()
    return points.loc[distance.idxmin()]


def _summary(chosen: pd.Series, found: pd.DataFrame, objectives: Sequence[Objective]) -> dict[str, Any]:
    row: dict[str, Any] = {key: chosen[key] for key in ("trial", *OPERATING_POINT) if key in chosen}
    row["n"] = len(found)
    wanted = [c for c in points_metrics(found, [o.metric for o in objectives]) if c in found]
    for metric in wanted:
        values = pd.to_numeric(found[metric], errors="coerce").dropna().to_numpy(dtype=float)
        if len(values):
            mean, low, high = mean_interval(values)
            row |= {f"{metric}{MEAN}": mean, f"{metric}{LOW}": low, f"{metric}{HIGH}": high}
    task = objectives[0].metric
    row[f"{SELECTED}{task}"] = float(chosen[task])
    test = on_split(task, "test")
    if test != task and f"{test}{MEAN}" in row:
        row[WINNERS_CURSE] = objectives[0].sign * (row[f"{test}{MEAN}"] - row[f"{SELECTED}{task}"])
    names = [key for key in chosen.index if "." in str(key) and not pd.isna(chosen[key])]
    return {**row, **{str(key): chosen[key] for key in names}}


def points_metrics(found: pd.DataFrame, objectives: Sequence[str]) -> list[str]:
    """Return the metrics to summarise: the objectives, those of the test split, and the realised routing ratio."""
    tests = [str(column) for column in found if split_of(str(column)) == "test"]
    return list(dict.fromkeys([*objectives, *tests, "routing_ratio"]))


def _study_file(folder: Path) -> Path:
    if not (folder / STUDY_FILE).is_file():
        raise InputError(f"{folder} is no results folder; it has no {STUDY_FILE}")
    return folder / STUDY_FILE


def _read_front(folder: Path) -> pd.DataFrame:
    path = folder / FRONT_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; `routing analyze {folder}` writes it")
    try:
        front = pd.read_csv(path, dtype=_TEXTS)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable: {str(error).splitlines()[0]}") from None
    if front.empty or "trial" not in front:
        raise InputError(f"{path}: no points; nothing to confirm")
    for number in front["trial"]:
        read_metrics(trial_folder(folder, int(number)))
    return front
