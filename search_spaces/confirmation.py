"""``confirm``: the front again under fresh seeds, and the test split read once.

A point selected among hundreds was partly lucky with its seed and the validation images. Here every configuration on
the front is trained again under fresh seeds; its values on the test images are then free of this selection bias.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from routing.config.run import RunConfig
from routing.config.script import AnyRun, ScriptRun, read_run
from routing.errors import InputError, RoutingError
from routing.files.atomic import write_json
from routing.files.links import check_links
from routing.files.record import OperatingPoint, TrialRecord, read_metrics
from routing.files.results_folder import (
    CONFIG_FILE,
    CONFIRM_FOLDER,
    FRONT_FILE,
    METRICS_FILE,
    OPERATING_POINT,
    POINTS_FILE,
    STUDY_FILE,
    TEST_FILE,
    TRIALS_FILE,
    trial_folder,
)
from search_spaces.confirm_table import (
    CORRECT,
    baseline_of,
    compared_points,
    pack,
    seed_losses,
    seeds_of,
    write_confirmed,
)
from search_spaces.racing import FEWEST, race
from search_spaces.signals import GO_ON
from search_spaces.study.ablation import declared_arms
from search_spaces.study.load import load_study, parse_study
from search_spaces.study.schema import MAX_NAME, AblationStudy, Study
from search_spaces.study.script import SCRIPT_KEYS, ScriptStudy
from search_spaces.tune import sweep

RUN = "search_spaces.confirmation:train_and_test"
_SUFFIX = "-confirm"
_MOST = 4
"""Of an adaptive confirmation: a configuration gets at most this many times the seeds of the average one."""
_TEXTS = {"knob_value": str}
"""Read as text: a threshold has 17 digits, and two points may differ in the last one only."""


def confirm(
    results: str | os.PathLike[str],
    seeds: int = 5,
    *,
    adaptive: bool = False,
    concurrency: int | None = None,
    address: str | None = None,
    time_budget: float | str | None = None,
    run: str = RUN,
) -> Path:
    """Train the front of ``results`` and its dense baseline under the same fresh seeds; write ``results/confirm``.

    Called again, it goes on where it stopped; with more seeds it adds them.

    Args:
        results: results folder of a sweep with its front.csv (``routing analyze`` writes it).
        seeds: trainings per configuration, under seeds the study has not used.
        adaptive: ``seeds`` is an average: after three of each, further ones only where a place on the front is open.
        concurrency, address, time_budget (not if adaptive), run: as in ``sweep``.

    Raises:
        InputError: no front there, no test split, or fewer than two seeds (four if adaptive).
    """
    folder = Path(results)
    _check_seeds(seeds, adaptive, time_budget)
    study = load_study(_study_file(folder))
    check_links(folder)
    front = _read_front(folder, study)
    baseline = baseline_of(_read_points(folder), study.objectives)
    trials = [*front["trial"], *([] if baseline is None else [baseline["trial"]])]
    arms = distinct_configurations(folder, trials)
    declared = confirmation_study(folder, study, arms, _MOST * seeds if adaptive else seeds)
    if run == RUN:  # before hours of training
        _check_test_split(folder, arms)
    out = folder / CONFIRM_FOLDER

    def train(declared: AblationStudy) -> pd.DataFrame:
        _sweep(declared, out, concurrency=concurrency, address=address, time_budget=time_budget, run=run)
        return pd.read_csv(out / POINTS_FILE, dtype=_TEXTS)

    def train_more(counts: dict[str, int]) -> list[tuple[str, NDArray[np.float64]]]:
        points = train(declared.model_copy(update={"seeds_per_arm": counts}))
        compared = [(arms[int(one["trial"])], one) for one in compared_points(front, baseline)]
        found = [(str(arm), seeds_of(one, points, arms)) for arm, one in compared]
        return [(arm, seed_losses(own, study.objectives)) for arm, own in found if len(own) > 1]

    if adaptive:
        counts = _counts(out, declared)
        race(counts, seeds * len(counts), len(declared.seeds), train_more, partial(print, flush=True))
    points = pd.read_csv(out / POINTS_FILE, dtype=_TEXTS) if adaptive else train(declared)
    write_confirmed(out, front, points, study.objectives, arms, baseline)
    return out


def _check_seeds(seeds: int, adaptive: bool, time_budget: float | str | None) -> None:
    if seeds < 2:
        raise InputError(f"seeds must be at least 2, not {seeds}: one training has no interval")
    if adaptive and seeds <= FEWEST:
        raise InputError(f"seeds must be above {FEWEST}, not {seeds}, to be adaptive: every configuration has {FEWEST}")
    if adaptive and time_budget is not None:
        raise InputError("time_budget: an adaptive confirmation has a budget of trainings, seeds times configurations")


def _check_test_split(folder: Path, trials: Iterable[int]) -> None:
    runs = [_config(folder, number) for number in trials]
    datasets = {run.dataset.model_dump_json(): run.dataset for run in runs if isinstance(run, RunConfig)}
    for dataset in datasets.values():
        dataset.load()["test"]


def _sweep(declared: AblationStudy, out: Path, **options: Any) -> None:
    """Run what is missing of a study; the front has been checked, so that no fault of it shows after hours."""
    try:  # seeds of one configuration may well fail alike
        sweep(declared, out, resume=True, force=True, keep_going=True, **options)
    except RoutingError as error:
        error.args = (str(error).replace(GO_ON, "the same command goes on"),)
        raise


def _counts(out: Path, declared: AblationStudy) -> dict[str, int]:
    """Return under how many seeds every arm is trained at first: those of an earlier call, at least the fewest."""
    before = load_study(out / STUDY_FILE) if (out / STUDY_FILE).is_file() else declared
    assert isinstance(before, AblationStudy)
    each, all_seeds = before.seeds_per_arm, len(before.seeds) if before is not declared else FEWEST
    names = [arm.name for arm in declared_arms(declared)]
    return {name: min(max(FEWEST, each.get(name, all_seeds)), len(declared.seeds)) for name in names}


def distinct_configurations(folder: Path, trials: Iterable[float]) -> dict[int, int]:
    """Return every one of these trials with the one that stands for it: the first of the same configuration."""
    first: dict[str, int] = {}
    arms = {}
    for number in dict.fromkeys(int(trial) for trial in trials):
        arms[number] = first.setdefault(json.dumps(_settings(folder, number), sort_keys=True), number)
    return arms


def confirmation_study(folder: Path, study: Study, arms: dict[int, int], seeds: int) -> AblationStudy:
    """Return the ablation whose arms are the distinct configurations, named after their trials."""
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
    declared = parse_study(values, f"{folder}: front")
    assert isinstance(declared, AblationStudy)
    return declared


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
        tested = points_on_test_split(out, record.points)
        rows = [point.row() for point, _ in tested]
        write_json(out / TEST_FILE, {"points": rows, CORRECT: [pack(correct) for _, correct in tested]})

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


def points_on_test_split(
    out: Path, points: Sequence[OperatingPoint]
) -> list[tuple[OperatingPoint, NDArray[np.bool_] | None]]:
    """Return the operating points of a saved run on the test split, at the knob values of the validation split.

    Each with the images (N,) it is right about, where the task's metric counts them.
    """
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
        (
            evaluation.point(point.knob, point.knob_value, point.is_default, point.params, "test"),
            None if evaluation.correct is None else evaluation.correct.numpy() > 0,
        )
        for evaluation, point in zip(evaluations, points, strict=True)
    ]


def _study_file(folder: Path) -> Path:
    if not (folder / STUDY_FILE).is_file():
        raise InputError(f"{folder} is no results folder; it has no {STUDY_FILE}")
    return folder / STUDY_FILE


def _read_points(folder: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(folder / POINTS_FILE, dtype=_TEXTS)
    except (OSError, ValueError):
        return pd.DataFrame()


def _read_front(folder: Path, study: Study) -> pd.DataFrame:
    path = folder / FRONT_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; `routing analyze {folder}` writes it")
    try:
        front = pd.read_csv(path, dtype=_TEXTS)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable: {str(error).splitlines()[0]}") from None
    metrics = [objective.metric for objective in study.objectives]
    missing = [name for name in ("trial", *OPERATING_POINT, *metrics) if name not in front]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; `routing analyze {folder}` writes it anew")
    if front.empty:
        raise InputError(f"{path}: no points; nothing to confirm")
    for name in ("trial", *metrics):
        numbers = pd.to_numeric(front[name], errors="coerce")
        wrong = front.index[~np.isfinite(numbers) | (name == "trial") & (numbers % 1 != 0)]
        if len(wrong):
            found = f"{path}:{wrong[0] + 2}: {name} is {front.loc[wrong[0], name]!r}, no number"
            raise InputError(f"{found}; `routing analyze {folder}` writes it anew")
        front[name] = numbers
    front = front.astype({"trial": int})
    for number in front["trial"]:
        read_metrics(trial_folder(folder, number))
    return front
