"""What a driver does between opening a ledger and running: it settles interrupted trials, queues missing ones, and
replays finished ones to the sampler and the stopping rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from routing.config.names import is_told
from routing.config.script import read_run
from routing.constraints import violations
from routing.errors import InputError
from routing.files.record import read_history, read_metrics
from routing.files.results_folder import (
    ASKED_BY,
    CONFIG_FILE,
    LEDGER_FILE,
    METRICS_FILE,
    STUDY_FILE,
    WARM_START_ATTR,
    trial_folder,
)
from routing.files.yaml_io import load_file
from routing.quantities import why_impossible
from search_spaces.ledger.folder import former_studies, has_run_as, holds_run
from search_spaces.ledger.ledger import (
    ENQUEUED,
    EXPECTED_FLOPS,
    GONE,
    PROPOSAL,
    REASON,
    REPLACES,
    RETRIED_AS,
    Ledger,
    done,
    read_trials,
    setting_of,
    warm_mark,
)
from search_spaces.ledger.requests import REQUEST, asked_for
from search_spaces.ledger.tables import values_of
from search_spaces.search.memory import Curve
from search_spaces.search.proposer import Proposer, fits
from search_spaces.search.rules import Rule, rule_of
from search_spaces.study.load import load_study
from search_spaces.study.schema import constraints_of
from search_spaces.words import FoundPoint, of_model

if TYPE_CHECKING:
    from routing.config.script import AnyRun
    from routing.constraints import Constraint
    from routing.objectives import Objective
    from search_spaces.plan import Blueprint
    from search_spaces.study.schema import Study
    from search_spaces.study.space import Space


def settle(ledger: Ledger, out: Path, objectives: Sequence[Objective], plan: Blueprint) -> list[str]:
    """Settle every interrupted trial: COMPLETE when its result is on disk, otherwise FAIL and queued again.

    A COMPLETE trial whose result is no longer readable is queued again too. Returns lines for the user.
    """
    notes = settle_running(ledger, out, objectives, plan)
    again = {t.user_attrs.get(REPLACES) for t in ledger.trials()}
    for trial in ledger.trials((TrialState.COMPLETE,)):
        if WARM_START_ATTR in trial.user_attrs or trial.number in again:
            continue
        try:
            read_metrics(trial_folder(out, trial.number))
        except InputError as error:
            _replace(ledger, trial)
            notes.append(f"trial {trial.number} runs again: {error}")
    return notes


def retry_failed(ledger: Ledger) -> list[str]:
    """Queue the settings of all failed trials again; return a line that says how many."""
    failed = [trial for trial in done(ledger.trials()) if trial.state == TrialState.FAIL]
    for trial in failed:
        _replace(ledger, trial)
    return [f"{len(failed)} failed trials are queued again"] if failed else []


def _replace(ledger: Ledger, trial: FrozenTrial) -> None:
    """Queue the setting of a finished trial again: the new row stands for it."""
    declared = {key: value for key, value in trial.user_attrs.items() if key in (ENQUEUED, REQUEST, ASKED_BY)}
    ledger.enqueue(setting_of(trial), {**declared, REPLACES: trial.number})


def settle_running(ledger: Ledger, out: Path, objectives: Sequence[Objective], plan: Blueprint) -> list[str]:
    """Settle every trial that is RUNNING in the ledger but on no worker; see ``settle``."""
    kept = requeued = 0
    for trial in ledger.trials((TrialState.RUNNING,)):
        values = _finished_values(trial, trial_folder(out, trial.number), objectives, plan)
        if values is not None:
            ledger.finish(trial.number, TrialState.COMPLETE, values)
            kept += 1
        else:
            ledger.requeue(trial, "interrupted")
            requeued += 1
    also = f", {kept} had finished" if kept else ""
    return [f"{requeued} interrupted trials are queued again{also}"] if kept or requeued else []


def _finished_values(
    trial: FrozenTrial, folder: Path, objectives: Sequence[Objective], plan: Blueprint
) -> list[float] | None:
    """Return the objectives of a trial that finished before the driver died; another run's result is removed."""
    if not (folder / METRICS_FILE).exists():
        return None
    try:
        metrics = read_metrics(folder)["metrics"]
        if former_studies(folder.parents[1]):  # the trial may have run under an earlier version of the study
            is_own = has_run_as(read_run(folder / CONFIG_FILE), setting_of(trial))
        else:
            is_own = holds_run(folder, plan.configure(plan.space.restore(setting_of(trial))))
    except (InputError, KeyError):  # KeyError: it was killed before its whole setting was written
        is_own = False
    if not is_own:
        (folder / METRICS_FILE).unlink(missing_ok=True)
        return None
    values = [metrics.get(objective.metric) for objective in objectives]
    usable = not any(why_impossible(o.metric, v) for o, v in zip(objectives, values, strict=True))
    return [float(v) for v in values if v is not None] if usable else None


def drop_gone(ledger: Ledger, space: Space) -> list[str]:
    """Mark queued settings that the study no longer has as FAIL; return a line with their number."""
    gone = [trial for trial in ledger.trials((TrialState.WAITING,)) if not fits(space, setting_of(trial), whole=False)]
    for trial in gone:
        ledger.finish(trial.number, TrialState.FAIL, None, {REASON: GONE})
    return [f"{len(gone)} queued settings are {GONE}"] if gone else []


def enqueue_missing(ledger: Ledger, settings: Sequence[dict[str, Any]]) -> None:
    """Queue the settings to run first that are not in the ledger yet."""
    trials = ledger.trials()
    counted = done(trials) + [trial for trial in trials if not trial.state.is_finished()]
    present = {trial.user_attrs.get(ENQUEUED) for trial in counted}
    for setting in settings:
        key = json.dumps(setting, sort_keys=True)
        if key not in present:
            ledger.enqueue(setting, {ENQUEUED: key})


def total_trials(ledger: Ledger, plan: Blueprint) -> int:
    """Return how many trials the ledger will have.

    As many as planned and those that people enqueued beside them; in an ablation every declared setting.
    """
    if plan.samples:
        trials = ledger.trials()
        replaced = {trial.user_attrs.get(REPLACES) for trial in trials}
        asked = [t for t in asked_for(trials) if RETRIED_AS not in t.user_attrs and t.number not in replaced]
        return plan.total + len(asked)
    over = done(ledger.trials())
    keys = {trial.user_attrs.get(ENQUEUED) for trial in over}
    return len(over) + sum(json.dumps(setting, sort_keys=True) not in keys for setting in plan.enqueue)


def next_proposal(ledger: Ledger) -> int:
    """Return the index of the next proposal of the sampler."""
    return max((trial.user_attrs.get(PROPOSAL, -1) for trial in ledger.trials()), default=-1) + 1


def replayed(ledger: Ledger, study: Study, plan: Blueprint, out: Path) -> tuple[Proposer, Rule, list[list[FoundPoint]]]:
    """Return a sampler and a stopping rule that know what the ledger knows, and the points of every ended trial."""
    rule = rule_of(study.scheduler, study.objectives)
    proposer = Proposer(plan.space, study.objectives, plan.sampler, plan.samples, constraints_of(study))
    points = replay(ledger, proposer, rule, out, study.objectives, plan)
    proposer.next_index = next_proposal(ledger)
    return proposer, rule, points


def replay(
    ledger: Ledger, proposer: Proposer, rule: Rule, out: Path, objectives: Sequence[Objective], plan: Blueprint
) -> list[list[FoundPoint]]:
    """Tell sampler and scheduler what the ledger knows; return the points of every ended trial."""
    points = []
    trials = ledger.trials()
    # learning curves matter only to a rule that stops trials and to a sampler that learns from stopped ones
    curves_count = rule.stops or any(trial.state == TrialState.PRUNED for trial in trials)
    for trial in trials:
        if WARM_START_ATTR in trial.user_attrs:
            proposer.replay(setting_of(trial), trial.state, trial.values)
    for trial in done(trials):
        folder = trial_folder(out, trial.number)
        history = _history(folder) if curves_count else []
        content = _content(folder)
        curve, broken = _curve(trial, history, objectives), violations(proposer.constraints, content.get("metrics", {}))
        proposer.replay(setting_of(trial), trial.state, trial.values, curve, broken)
        _replay_history(rule, trial, folder, history)
        found = points_to_choose(plan, trial, content, objectives, proposer.constraints)
        points.append([(model, point) for model in [_model(plan, trial)] * bool(found) for point in found])
    return points


def _history(folder: Path) -> list[dict[str, float]]:
    """Return the epochs of a trial, finite numbers only; none where its history is not readable."""
    try:
        rows = [{key: value for key, value in row.items() if math.isfinite(value)} for row in read_history(folder)]
    except (OSError, InputError):
        return []
    return [row for row in rows if "epoch" in row]


def _curve(trial: FrozenTrial, history: list[dict[str, float]], objectives: Sequence[Objective]) -> Curve:
    """Return the objectives epoch by epoch; a stopped trial without a history has at least its last values."""
    rows = history
    if not rows and "epochs" in trial.user_attrs:
        rows = [{**trial.user_attrs.get("last", {}), "epoch": trial.user_attrs["epochs"]}]
    names = [objective.metric for objective in objectives]
    expected = {"flops": trial.user_attrs.get(EXPECTED_FLOPS)}
    values = {int(row["epoch"]): [row.get(name, expected.get(name)) for name in names] for row in rows}
    return {epoch: [float(v) for v in found if v is not None] for epoch, found in values.items() if None not in found}


def _replay_history(rule: Rule, trial: FrozenTrial, folder: Path, history: list[dict[str, float]]) -> None:
    if rule.section.name == "none":
        return
    try:
        run = load_file(folder / CONFIG_FILE)[0]
        max_epochs = run["training"]["num_epochs"] if "training" in run else run["steps"]  # a script reports steps
        for row in history:
            rule.note(trial.number, row, max_epochs, trial.user_attrs.get(EXPECTED_FLOPS))
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return  # a trial without a readable history is not compared at any rung


def points_to_choose(
    plan: Blueprint,
    trial: FrozenTrial,
    content: dict[str, Any],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> list[list[float]]:
    """Return the objectives of the points of a trial that can be on the front: see ``values_of``; an oracle has none.

    Args:
        content: of its metrics.json, empty where there is none.
    """
    found = values_of(content, objectives, constraints)
    run = _run(plan, trial) if found else None
    return [] if run is not None and is_told(run.dotted()) else found


def _model(plan: Blueprint, trial: FrozenTrial) -> str:
    """Return what a trial trained, empty where the study has changed since."""
    run = _run(plan, trial)
    return "" if run is None else of_model(run, plan.keys)


def _run(plan: Blueprint, trial: FrozenTrial) -> AnyRun | None:
    """Return the run of a trial, None where the study has changed since."""
    try:
        return plan.configure(plan.space.restore(setting_of(trial)))
    except (InputError, KeyError):
        return None


def _content(folder: Path) -> dict[str, Any]:
    """Return the metrics.json of a trial, empty where there is none that can be read."""
    try:
        return read_metrics(folder)
    except InputError:
        return {}


def check_warm_source(folder: Path, objectives: Sequence[Objective]) -> None:
    """Raise ``InputError`` when another results folder has other objectives, or a ledger that cannot be read."""
    read_trials(folder / LEDGER_FILE, _same_objectives(folder, objectives))


def _same_objectives(folder: Path, objectives: Sequence[Objective]) -> str:
    """Return the name of the study in a results folder; one with other objectives is an ``InputError``."""
    other = load_study(folder / STUDY_FILE)
    wanted = [(o.metric, o.goal) for o in objectives]
    if [(o.metric, o.goal) for o in other.objectives] != wanted:
        raise InputError(f"warm start: {folder} has other objectives than {', '.join(m for m, _ in wanted)}")
    return other.name


def warm(ledger: Ledger, folder: Path, objectives: Sequence[Objective], space: Space) -> str:
    """Take over the finished trials of another results folder for the sampler; return a line that says how many.

    Raises:
        InputError: its objectives are others, or its ledger cannot be read.
    """
    source = str(folder.resolve())
    known = {trial.user_attrs.get(WARM_START_ATTR) for trial in ledger.trials()}
    if not folder.exists() and any(mark is not None and mark.startswith(f"{source} trial ") for mark in known):
        return f"warm start: {folder.name} was taken over before"
    name = _same_objectives(folder, objectives)
    distributions = space.distributions()
    taken = skipped = before = 0
    for trial in read_trials(folder / LEDGER_FILE, name):
        if trial.state != TrialState.COMPLETE or REASON in trial.user_attrs:
            continue
        if warm_mark(source, trial.number) in known:
            before += 1
        elif fits(space, trial.params):
            ledger.add_finished(trial, source, distributions)
            taken += 1
        else:
            skipped += 1
    if before and not taken:
        return f"warm start: {folder.name} was taken over before"
    also = f", {skipped} others do not fit the space" if skipped else ""
    return f"warm start: {taken} trials of {folder.name}{also}"
