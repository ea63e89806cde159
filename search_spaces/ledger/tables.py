"""From the ledger and the trial folders to trials.csv and points.csv, whole files replaced in one step."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from routing.commands.console import duration
from routing.config.names import is_told
from routing.config.script import AnyRun, read_run
from routing.constraints import Constraint, first_broken
from routing.errors import InputError
from routing.files.atomic import write_text
from routing.files.names import safe_cell
from routing.files.record import read_metrics
from routing.files.results_folder import (
    ARM,
    ASKED_BY,
    COMPLETE,
    CONFIG_FILE,
    FAIL,
    OPERATING_POINT,
    POINTS_FILE,
    PRUNED,
    STATE_WORDS,
    TEST_FILE,
    TRIAL_COLUMNS,
    TRIALS_FILE,
    VERSION_COLUMNS,
    VIOLATES,
    WARM_START,
    WARM_START_ATTR,
    trial_folder,
)
from routing.files.yaml_io import as_cell
from routing.objectives import losses_of
from routing.pareto import is_on_front
from routing.quantities import split_of, why_impossible
from search_spaces.ledger.folder import former_studies, has_run_as
from search_spaces.ledger.ledger import REASON, REPLACES, RETRIED_AS, setting_of

if TYPE_CHECKING:
    from routing.objectives import Objective

_INTERRUPTED = "INTERRUPTED"
"""In the summary: a failed trial whose setting was queued again, so that nothing is missing."""
_REPLACED = "REPLACED"
"""A trial in whose place another one runs: it failed and is tried again, or its result cannot be read."""
_WORDS = {state: STATE_WORDS[state] for state in (COMPLETE, PRUNED, FAIL)}
_WORDS |= {_INTERRUPTED: "interrupted", _REPLACED: "run again", WARM_START: STATE_WORDS[WARM_START]}
_CONTEXT = (ARM,)
_STOPPED = ("rung", "rank", "peers")
_COSTS = ("seconds", "cpu_seconds", "expected_flops", ASKED_BY, "node", *VERSION_COLUMNS.values())


class Collector:
    """Builds the tables of a results folder; the rows of finished trials are read once.

    Args:
        out: results folder.
        configure: ledger parameters of a trial -> its run; raises ``InputError`` for settings of an older study.
        objectives: of the study; each has a column in points.csv.
        constraints: of the study; ``violates`` in points.csv says which one a point breaks.
    """

    def __init__(
        self,
        out: Path,
        configure: Callable[[dict[str, Any]], AnyRun],
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self.out, self.configure, self.objectives, self.constraints = out, configure, objectives, constraints
        self._rows: dict[int, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        self._study_has_changed = False
        self._queued_again: set[int] = set()
        self._replaced: set[int | None] = set()
        self._spans: list[tuple[datetime, datetime]] = []

    def write(self, trials: Iterable[FrozenTrial]) -> None:
        """Replace trials.csv and points.csv."""
        trials = list(trials)
        self._queued_again = {trial.number for trial in trials if RETRIED_AS in trial.user_attrs}
        self._replaced = {trial.user_attrs.get(REPLACES) for trial in trials}
        self._spans = [
            (trial.datetime_start, trial.datetime_complete)
            for trial in trials
            if trial.datetime_start and trial.datetime_complete and WARM_START_ATTR not in trial.user_attrs
        ]
        self._study_has_changed = bool(former_studies(self.out))
        rows, points = [], []
        for trial in trials:
            row, own_points = self._read(trial)
            rows.append(row)
            points += own_points
        write_table(self.out / TRIALS_FILE, rows, first=(*TRIAL_COLUMNS, *_CONTEXT))
        write_table(self.out / POINTS_FILE, points, first=("trial", "seed", *_CONTEXT, *OPERATING_POINT))

    def summary(self) -> str:
        """Return one line on what the trials came to and what they cost."""
        rows = [row for row, _ in self._rows.values()]
        states = Counter(self._end_of(row) for row in rows)
        parts = [f"{states[state]} {word}" for state, word in _WORDS.items() if states[state]]
        cpu = sum(float(row["cpu_seconds"] or 0) for row in rows)
        saved = sum(_epochs_saved(row) for row in rows if row["state"] == PRUNED)
        parts.append(f"{cpu / 60:.1f} CPU minutes in {duration(seconds_covered(self._spans))}")
        if saved:
            parts.append(f"early stopping saved {saved:.0f} epochs")
        return ", ".join(parts)

    def _end_of(self, row: dict[str, Any]) -> str:
        if row["number"] in self._queued_again:
            return _INTERRUPTED
        return _REPLACED if row["number"] in self._replaced else str(row["state"])

    def front_trials(self) -> set[int]:
        """Return the trials that own a point nothing dominates; those of an oracle are no models to choose."""
        objectives = self.objectives
        owners, found = [], []
        for number, (_, points) in self._rows.items():
            for point in points:
                values = [point.get(objective.metric) for objective in objectives]
                numbers = [float(value) for value in values if isinstance(value, (int, float))]
                if len(numbers) == len(objectives) and not point.get(VIOLATES) and not is_told(point):
                    owners.append(number)
                    found.append(numbers)
        kept = is_on_front(losses_of(found, objectives))
        return {owner for owner, keep in zip(owners, kept, strict=True) if keep}

    def _read(self, trial: FrozenTrial) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if trial.number not in self._rows:
            built = self._build(trial)
            if not trial.state.is_finished():
                return built
            self._rows[trial.number] = built
        return self._rows[trial.number]

    def _build(self, trial: FrozenTrial) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        config = self._config(trial)
        setting = setting_of(trial)
        context = {key: setting[key] for key in _CONTEXT if key in setting}
        seed = config.get("seed", "")
        keys = {key: value for key, value in config.items() if key != "seed"}
        warm = WARM_START_ATTR in trial.user_attrs
        row: dict[str, Any] = {
            "number": trial.number,
            "state": WARM_START if warm else trial.state.name,
            "reason": trial.user_attrs.get(REASON, ""),
            "seed": seed,
            **context,
            **keys,
        }
        metrics: dict[str, Any] = {}
        points: list[dict[str, Any]] = []
        if trial.state == TrialState.COMPLETE and not warm:
            try:
                content = read_metrics(trial_folder(self.out, trial.number))
                metrics = content["metrics"]
                certificate = content.get("certificate") or {}
                row["router_state"] = certificate.get("state", "")
                found = with_test_metrics(trial_folder(self.out, trial.number), points_of(content, self.objectives))
                points = [
                    {"trial": trial.number, "seed": seed, **context, **point, **self._violates(point), **keys}
                    for point in found
                ]
            except InputError as error:
                row["state"], row["reason"] = FAIL, str(error)
        else:
            metrics = {key: trial.user_attrs[key] for key in ("epochs", "train_seconds") if key in trial.user_attrs}
            metrics |= trial.user_attrs.get("last", {})
        row |= {"epochs": metrics.get("epochs", ""), "train_seconds": metrics.get("train_seconds", "")}
        row |= {key: value for key, value in metrics.items() if key not in row and not isinstance(value, (dict, list))}
        row |= {key: trial.user_attrs.get(key, "") for key in (*_STOPPED, *_COSTS) if key not in row}
        return row, points

    def _violates(self, point: dict[str, Any]) -> dict[str, str]:
        return {VIOLATES: first_broken(self.constraints, point)} if self.constraints else {}

    def _config(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return the dotted run of a trial: from its parameters, or from its folder when the study has changed."""
        setting = setting_of(trial)
        if trial.state == TrialState.WAITING:
            return setting
        if self._study_has_changed and trial.state.is_finished():
            ran = self._config_in_folder(trial.number)
            if ran is not None and has_run_as(ran, setting):
                return ran.dotted()
        try:
            return self.configure(setting).dotted()
        except (InputError, KeyError):
            ran = self._config_in_folder(trial.number)
            return setting if ran is None else ran.dotted()

    def _config_in_folder(self, number: int) -> AnyRun | None:
        try:
            return read_run(trial_folder(self.out, number) / CONFIG_FILE)
        except InputError:
            return None


def seconds_covered(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Return the seconds in which at least one of the spans lasted."""
    covered, end = 0.0, datetime.min
    for start, stop in sorted(spans):
        covered += max((stop - max(start, end)).total_seconds(), 0.0) if stop > end else 0.0
        end = max(end, stop)
    return covered


def _epochs_saved(row: dict[str, Any]) -> float:
    planned, trained = row.get("training.num_epochs"), row.get("epochs")
    return float(planned) - float(trained) if planned and trained else 0.0


def points_of(content: dict[str, Any], objectives: Sequence[Objective]) -> list[dict[str, Any]]:
    """Return the operating points of a finished trial; an objective of its training (``train_seconds``) is all points'.

    Args:
        content: of its metrics.json.
    """
    metrics, points = content.get("metrics", {}), content.get("points", [])
    shared = {o.metric: metrics[o.metric] for o in objectives if o.metric in metrics}
    shared = {metric: value for metric, value in shared.items() if not any(metric in point for point in points)}
    return [{**point, **shared} for point in points]


def values_of(
    content: dict[str, Any], objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> list[list[float]]:
    """Return the objectives of every operating point that has them all, with values that can be, and keeps to the
    constraints; see ``points_of``."""
    wanted = [objective.metric for objective in objectives]
    points = [point for point in points_of(content, objectives) if not first_broken(constraints, point)]
    return [[point[m] for m in wanted] for point in points if not any(why_impossible(m, point.get(m)) for m in wanted)]


def with_test_metrics(folder: Path, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points with what they reached on the test split, where ``confirm`` has evaluated it."""
    try:
        tested = json.loads((folder / TEST_FILE).read_text(encoding="utf-8"))["points"]
        found = {
            _operating_point(row): {key: value for key, value in row.items() if split_of(key) == "test"}
            for row in tested
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return points
    return [{**point, **found.get(_operating_point(point), {})} for point in points]


def _operating_point(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in OPERATING_POINT)


def write_table(path: Path, rows: list[dict[str, Any]], first: tuple[str, ...] = ()) -> None:
    """Write rows as CSV; columns are the union of all keys in order of appearance, ``first`` in front where present."""
    union = dict.fromkeys(key for row in rows for key in row)
    columns = [key for key in first if key in union] + [key for key in union if key not in first]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(first), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: safe_cell(as_cell(value)) for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())
