"""Does the ledger agree with the trial folders? A line that is lost, doubled or swapped would label results wrongly."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from routing.config.script import read_run
from routing.errors import InputError
from routing.files.record import read_metrics
from routing.files.results_folder import (
    CONFIG_FILE,
    METRICS_FILE,
    TRIALS_FILE,
    TRIALS_FOLDER,
    WARM_START_ATTR,
    trial_folder,
)
from search_spaces.ledger.ledger import RETRIED_AS, setting_of

if TYPE_CHECKING:
    from routing.objectives import Objective
    from search_spaces.plan import Blueprint

_NAMED = 4
_CREATE_TRIAL = 4
"""``op_code`` of the lines of Optuna's journal that give a trial its number."""


def check_agreement(
    trials: Sequence[FrozenTrial], out: Path, objectives: Sequence[Objective], plans: Sequence[Blueprint], where: str
) -> None:
    """See that every finished trial of the ledger has the settings and the result that its folder holds.

    Args:
        trials: rows of the ledger.
        plans: of the study, and of what it was before each ``--force``; a trial ran under one of them.
        where: the ledger; of a journal, the lines are named.

    Raises:
        InputError: some do not; the first are named, with the line of the journal that creates them.
    """
    found = {trial.number: difference for trial in trials if (difference := _difference(trial, out, objectives, plans))}
    if not found:
        return
    lines = _created_at(Path(where)) if "://" not in where else []
    named = [f"{number} (line {lines[number]})" if number < len(lines) else str(number) for number in found]
    more = f" (also trials {', '.join(named[1:_NAMED])}{', ...' if len(named) > _NAMED else ''})" if named[1:] else ""
    raise InputError(
        f"{where}: trial {named[0]}: {next(iter(found.values()))}{more}; an entry was lost, doubled or moved: put a "
        "whole copy of the ledger in its place"
    )


def unknown_results(trials: Sequence[FrozenTrial], out: Path) -> list[int]:
    """Return the numbers of the trials whose folder holds a whole result, and that the ledger has never heard of."""
    known = {trial.number for trial in trials}
    folders = (out / TRIALS_FOLDER).glob("*") if (out / TRIALS_FOLDER).is_dir() else ()
    numbers = sorted(int(folder.name) for folder in folders if folder.name.isdigit())
    return [number for number in numbers if number not in known and (trial_folder(out, number) / METRICS_FILE).exists()]


def listed_trials(out: Path) -> int:
    """Return how many trials the ledger had when trials.csv was written last; 0 where that cannot be read."""
    try:
        with (out / TRIALS_FILE).open(encoding="utf-8", newline="") as file:
            return max((int(row["number"]) + 1 for row in csv.DictReader(file)), default=0)
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return 0


def _difference(
    trial: FrozenTrial, out: Path, objectives: Sequence[Objective], plans: Sequence[Blueprint]
) -> str | None:
    """Return in what a finished row and its folder differ; None where they agree or one has nothing to compare."""
    attrs = trial.user_attrs
    if not trial.state.is_finished() or RETRIED_AS in attrs or WARM_START_ATTR in attrs:
        return None
    folder = trial_folder(out, trial.number)
    try:
        ran = read_run(folder / CONFIG_FILE).dotted()
    except InputError:
        return None  # it never started, or its folder is damaged, which is said where its result is read
    first = None
    for plan in plans:
        difference = _setting_differs(trial, ran, plan)
        if difference is None:
            break
        first = first or difference
    else:
        if first is not None:
            return first
    return _result_differs(trial, folder, objectives) if trial.state == TrialState.COMPLETE else None


def _setting_differs(trial: FrozenTrial, ran: dict[str, Any], plan: Blueprint) -> str | None:
    setting = setting_of(trial)
    try:
        expected = plan.configure(plan.space.restore(setting)).dotted()
    except (InputError, KeyError):
        missing = [name for name in plan.space.distributions() if name not in setting]
        return f"the ledger has no {', '.join(missing)}" if missing else "its setting is not of this study"
    for key in expected:
        if key != "device" and key in ran and expected[key] != ran[key]:
            return f"{key} is {expected[key]} in the ledger and {ran[key]} in {CONFIG_FILE}"
    return None


def _result_differs(trial: FrozenTrial, folder: Path, objectives: Sequence[Objective]) -> str | None:
    try:
        metrics = read_metrics(folder)["metrics"]
    except InputError:
        return None  # it runs again
    for objective, value in zip(objectives, trial.values or (), strict=False):
        there = metrics.get(objective.metric)
        if isinstance(there, (int, float)) and float(there) != value:
            return f"{objective.metric} is {value:g} in the ledger and {there:g} in {METRICS_FILE}"
    return None


def _created_at(journal: Path) -> list[int]:
    """Return the line of a journal that creates each trial, in order of their numbers."""
    lines = []
    with journal.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                if json.loads(line).get("op_code") == _CREATE_TRIAL:
                    lines.append(number)
            except (ValueError, AttributeError, RecursionError):
                break
    return lines
