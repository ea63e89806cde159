"""A real results folder made without Ray: two short trainings, written down as a sweep does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from small_studies import sweep_values

from routing.files.results_folder import LEDGER_FILE, trial_folder
from routing.runner import run
from search_spaces.ledger.folder import write_environment, write_study
from search_spaces.ledger.ledger import Ledger
from search_spaces.ledger.tables import Collector
from search_spaces.plan import blueprint
from search_spaces.study.load import parse_study

SETTINGS: list[dict[str, Any]] = [{"model.router.threshold_init": 0.5}, {"model.router.threshold_init": -0.5}]


def build(out: Path, tiny: dict[str, Any]) -> Path:
    """Train two trials of a small study and write every file of a results folder."""
    space = {"model.router.threshold_init": {"float": [-2.0, 2.0]}}
    study = parse_study(sweep_values(base=tiny, space=space, trials=len(SETTINGS)))
    plan = blueprint(study)
    write_study(out, study)
    write_environment(out, study, 1, 0)
    ledger = Ledger(str(out / LEDGER_FILE), study.name, study.objectives)
    for setting in SETTINGS:
        number = ledger.start(setting, plan.space.distributions(), {})
        record = run(plan.configure(setting), None, trial_folder(out, number))
        ledger.finish(number, TrialState.COMPLETE, [record.metrics["val_accuracy"], record.metrics["flops"]])
    Collector(out, lambda labels: plan.configure(plan.space.restore(labels)), study.objectives).write(ledger.trials())
    return out
