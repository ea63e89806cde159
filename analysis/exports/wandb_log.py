"""A results folder as runs of Weights & Biases (extra ``wandb``): one per trial, and one of the study."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.exports.logged import (
    elapsed,
    ended_trials,
    epochs,
    files_of_study,
    is_over,
    numbers,
    places,
    settings,
)
from analysis.findings.summary import Summary, summarise
from analysis.read.configs import config_keys
from analysis.read.results import Results, read_results
from analysis.read.times import Span, trial_times
from routing.errors import InputError, RoutingError
from routing.files.atomic import write_json
from routing.files.results_folder import COMPLETE, WANDB_FILE


def log_to_wandb(folder: str | Path, project: str) -> int:
    """Log every ended trial of a results folder that was not logged yet; return how many were.

    A run has the configuration, the metrics as summary, the history with the epoch as step at the time it had, the tags
    ``front`` and ``knee``, its state and reason; W&B takes no start or end of a run from outside: they are in the
    summary. A further run stands for the study: hypervolume after every trial, and report, tables and front as an
    artifact. Called again while a sweep runs, it adds what is new and writes runs again whose tags have changed, under
    the same id; what has been logged stands in ``wandb.json``. Where it is sent, or kept for ``wandb sync``, says W&B's
    own environment (``WANDB_MODE``, ``WANDB_DIR``).

    Args:
        folder: a results folder.
        project: ``project`` or ``entity/project``.

    Raises:
        InputError: not a results folder, no name of a project, or wandb is not installed or is disabled.
        RoutingError: W&B refused.
    """
    try:
        import wandb
    except ImportError:
        raise InputError("--wandb needs Weights & Biases: pip install 'routing-sweeps[wandb]'") from None
    results = read_results(folder)
    entity, _, name = project.rpartition("/")
    if not name or "/" in entity:
        raise InputError(f"--wandb {project!r}: write PROJECT or ENTITY/PROJECT")
    try:
        return _log(results, wandb, {"project": name, "entity": entity or None, "group": results.name})
    except (wandb.errors.Error, OSError) as error:
        raise RoutingError(f"Weights & Biases, project {project}: {str(error).splitlines()[0]}") from None


def _log(results: Results, wandb: Any, where: dict[str, Any]) -> int:
    summary, keys = summarise(results), set(config_keys(results.trials))
    tagged = dict(zip(("front", "knee"), places(summary), strict=True))
    known = _known(results.folder, str(where["project"]))
    times = trial_times(results)
    count, changed = 0, False
    for _, row in ended_trials(results).iterrows():
        number = int(row["number"])
        tags = [name for name, numbers_there in tagged.items() if number in numbers_there]
        before = known.get(str(number))
        if before == tags:
            continue
        span = times.get(number)
        run = _start(wandb, results, where, f"{results.name}-{number}", str(number), tags)
        _log_trial(run, results, row, keys, span)
        count, changed = count + (before is None), True
        run.finish(exit_code=int(row["state"] != COMPLETE))
        known[str(number)] = tags
        write_json(results.folder / WANDB_FILE, {"project": where["project"], "trials": known})
    if changed or is_over(results):
        _log_study(wandb, where, summary)
    return count


def _known(folder: Path, project: str) -> dict[str, list[str]]:
    """Return the tags of the trials that have been logged to this project."""
    try:
        content = json.loads((folder / WANDB_FILE).read_text(encoding="utf-8"))
        return dict(content["trials"]) if content["project"] == project else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _start(wandb: Any, results: Results, where: dict[str, Any], name: str, what: str, tags: list[str]) -> Any:
    """Start a run whose id is that of the folder and the trial: it takes the place of an earlier one.

    W&B ignores ``resume`` offline, and ``wandb sync`` would send both: the earlier one is removed from this disk
    before the new one begins, for W&B names folders after the second.
    """
    address = hashlib.sha256(str(results.folder.resolve()).encode()).hexdigest()[:12]
    quiet = {"silent": True, "console": "off", "x_disable_stats": True, "disable_git": True, "disable_code": True}
    run_id = f"{address}-{what}"
    for former in Path(wandb.setup().settings.wandb_dir).glob(f"offline-run-*-{run_id}"):
        shutil.rmtree(former)
    run = wandb.init(**where, id=run_id, name=name, tags=tags, settings=wandb.Settings(**quiet))
    if run.disabled:
        raise InputError("--wandb: W&B is disabled here (WANDB_MODE, `wandb disabled`); it must be online or offline")
    return run


def _log_trial(run: Any, results: Results, row: pd.Series, keys: set[str], span: Span | None) -> None:
    number = int(row["number"])
    run.config.update(settings(row, keys))
    history = epochs(results, number)
    for share, (_, epoch) in zip(elapsed(history), history.iterrows(), strict=True):
        moment = {} if span is None else {"_timestamp": span[0] + share * (span[1] - span[0])}
        run.log({**numbers(epoch, {"epoch"}), **moment}, step=int(epoch["epoch"]))
    reason = {"reason": row["reason"]} if isinstance(row["reason"], str) and row["reason"] else {}
    run.summary.update({**numbers(row, keys | {"number"}), "state": str(row["state"]), **reason, **_moments(span)})


def _moments(span: Span | None) -> dict[str, Any]:
    if span is None:
        return {}
    started, ended = (datetime.fromtimestamp(moment, timezone.utc).isoformat() for moment in span)
    return {"started": started, "ended": ended}


def _log_study(wandb: Any, where: dict[str, Any], summary: Summary) -> None:
    results = summary.results
    run = _start(wandb, results, where, f"{results.name} (study)", "study", ["study"])
    for step, volume in enumerate(summary.history["hypervolume"], start=1):
        run.log({"hypervolume": float(volume)}, step=step)
    files = wandb.Artifact(f"{results.name}-report", type="report")
    for path in files_of_study(results):
        files.add_file(str(path))
    run.log_artifact(files)
    run.finish()
