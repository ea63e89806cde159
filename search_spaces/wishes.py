"""``enqueue``, ``stop``, ``finish``: requests of a person to a sweep, checked before they are written."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routing.errors import InputError, choices, nearest
from routing.files.activity import is_driven, is_under_way
from routing.files.links import check_links
from routing.files.results_folder import LEDGER_FILE, RUNNING, STUDY_FILE, TRIALS_FILE, is_results_folder
from routing.files.yaml_io import parse_scalar
from search_spaces.ledger.folder import dump_study
from search_spaces.ledger.ledger import read_trials
from search_spaces.ledger.requests import ENQUEUE, FINISH, STOP, ask
from search_spaces.study.load import load_study, parse_study
from search_spaces.study.schema import SweepStudy
from search_spaces.study.script import space_of

Folder = str | os.PathLike[str]


def enqueue(results: Folder, words: Sequence[str]) -> str:
    """Ask a sweep to run a setting next, beside its own trials; return a line that says when.

    Args:
        words: ``key=value``, keys of the space; the sampler does not choose the others, they are drawn at random.

    Raises:
        InputError: no sweep there, or a setting outside its space.
    """
    out = _folder(results)
    study = load_study(out / STUDY_FILE)
    if not isinstance(study, SweepStudy):
        raise InputError(f"{out}: an ablation runs what it declares; add a level to its study and --force")
    setting: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or key not in study.space:
            raise InputError(
                f"enqueue: '{word}'{nearest(key, study.space)} (valid: KEY=VALUE of {choices(study.space)})"
            )
        if key in setting:
            raise InputError(f"enqueue: '{key}' is given twice")
        setting[key] = parse_scalar(value, key)
    checked = parse_study({**dump_study(study), "enqueue": [setting]}, str(out))
    assert isinstance(checked, SweepStudy)
    ask(out, ENQUEUE, setting=space_of(checked).labels(checked.enqueue[0]))
    return f"asked: {', '.join(words)} is run next{_when(out)}"


def stop(results: Folder, trial: int) -> str:
    """Ask a sweep to stop one of its running trials; return a line that says when.

    Raises:
        InputError: no sweep there, or this trial does not run.
    """
    out = _folder(results)
    running = _running(out)
    if trial not in running:
        raise InputError(f"{out}: trial {trial} does not run (running: {choices(running) or 'none'})")
    ask(out, STOP, trial=trial)
    return f"asked: trial {trial} stops{_when(out)}"


def finish(results: Folder) -> str:
    """Ask a sweep to start no more trials and to end with those that run; return a line that says when.

    Raises:
        InputError: no sweep there, or it does not run: the request would end the next --resume at its start.
    """
    out = _folder(results)
    if not is_under_way(out, lambda: bool(_running(out))):
        raise InputError(
            f"{out}: no sweep runs there now, so there is nothing to finish (of one on another machine: ask there)"
        )
    ask(out, FINISH)
    return f"asked: the sweep ends with the trials that run now{_when(out)}"


def _folder(results: Folder) -> Path:
    out = Path(results)
    if not is_results_folder(out):
        raise InputError(f"{out} is no results folder; it has no {STUDY_FILE}, or no sweep has run in it")
    check_links(out)
    return out


def _running(out: Path) -> list[int]:
    """Return the trials that run, from the journal; of a ledger elsewhere, as trials.csv has them."""
    if (out / LEDGER_FILE).exists():
        rows = read_trials(out / LEDGER_FILE, load_study(out / STUDY_FILE).name)
        return [trial.number for trial in rows if trial.state.name == RUNNING]
    try:
        with (out / TRIALS_FILE).open(encoding="utf-8", newline="") as file:
            return [int(row["number"]) for row in csv.DictReader(file) if row["state"] == RUNNING]
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def _when(out: Path) -> str:
    """Return when a request is met: within seconds where a driver holds the lock of the folder."""
    if is_driven(out):
        return " (within seconds)"
    return " (no driver is seen on this machine: when one elsewhere looks, or when the sweep goes on with --resume)"
