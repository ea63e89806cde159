"""What people ask of a sweep: one file each in its folder, which the driver takes up, now or when the sweep goes on.

The ledger has one writer, the driver. A request stays until it has been met, so that it survives a killed driver; then
it moves to ``requests/taken/``.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from routing.files.atomic import write_json
from routing.files.results_folder import ASKED_BY, REQUESTS_FOLDER
from search_spaces.ledger.ledger import ENQUEUED, REASON, RETRY_OF, Ledger
from search_spaces.search.proposer import fits

if TYPE_CHECKING:
    from search_spaces.study.space import Space

ENQUEUE, STOP, FINISH = "enqueue", "stop", "finish"
REQUEST = "request"
"""Attribute of a trial that was enqueued while its sweep ran: the request that it meets."""
_TAKEN = "taken"
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Request:
    """One request: ``what``, of ``trial`` or with ``setting`` (as the ledger stores it), and ``who`` asked."""

    path: Path
    what: str
    who: str
    trial: int | None = None
    setting: dict[str, Any] = field(default_factory=dict)


def ask(out: Path, what: str, **content: Any) -> Request:
    """Write a request into a results folder; ``content`` is ``trial`` or ``setting``."""
    path = out / REQUESTS_FOLDER / f"{time.time_ns()}-{secrets.token_hex(4)}.json"
    request = Request(path, what, _who(), **content)
    write_json(path, {"what": what, "who": request.who, **content})
    return request


def requests(out: Path) -> list[Request]:
    """Return the requests that have not been met, oldest first; what is no request is left alone."""
    found = []
    for path in sorted((out / REQUESTS_FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            content = json.loads(path.read_text(encoding="utf-8"))
            request = Request(path, **{**content, "who": _plain(content["who"])})
            if isinstance(request.setting, dict) and isinstance(request.trial, (int, type(None))):
                found.append(request)
    return found


def take(request: Request) -> None:
    """Put a request with those that have been met."""
    folder = request.path.parent / _TAKEN
    folder.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        request.path.replace(folder / request.path.name)


def asked_for(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that were enqueued on request: the study has them beside its own."""
    return [trial for trial in trials if REQUEST in trial.user_attrs]


def enqueue_asked(ledger: Ledger, space: Space, request: Request) -> tuple[str, bool]:
    """Queue the setting of a request, unless a killed driver has done so; return a line and whether it queued."""
    words = ", ".join(f"{key} = {value}" for key, value in request.setting.items())
    if not fits(space, request.setting, whole=False):
        take(request)
        return f"{request.who} asked for {words}, which is not in the space: left out", False
    is_new = all(trial.user_attrs[REQUEST] != request.path.name for trial in asked_for(ledger.trials()))
    if is_new:
        asked = {ASKED_BY: f"enqueued while running by {request.who}", REQUEST: request.path.name}
        ledger.enqueue(request.setting, {**asked, ENQUEUED: f"{REQUEST} {request.path.name}"})
    take(request)
    return f"{request.who} enqueued {words}", is_new


def stopped_by(request: Request) -> dict[str, str]:
    """Return what the row of a stopped trial says."""
    return {REASON: f"stopped by {request.who}", ASKED_BY: f"stopped by {request.who}"}


def settle_requests(ledger: Ledger, out: Path, space: Space) -> list[str]:
    """Meet the requests that a driver has left, all but the end of the sweep; return a line on each."""
    lines = []
    for request in requests(out):
        if request.what == ENQUEUE:
            lines.append(enqueue_asked(ledger, space, request)[0])
        elif request.what == STOP:
            queued = _queued_again(ledger, request.trial)
            for trial in queued:
                ledger.finish(trial.number, TrialState.PRUNED, None, stopped_by(request))
                lines.append(f"trial {request.trial} is not run again: stopped by {request.who}")
            take(request)
    return lines


def _queued_again(ledger: Ledger, number: int | None) -> list[FrozenTrial]:
    """Return the waiting trial that would go on with this one."""
    numbers = {number}
    waiting = []
    for trial in ledger.trials():  # a retry has a higher number than what it repeats
        if trial.user_attrs.get(RETRY_OF) in numbers or trial.number == number:
            numbers.add(trial.number)
            waiting += [trial] if trial.state == TrialState.WAITING else []
    return waiting


def _plain(who: Any) -> str:
    """Return a name fit for terminals and tables: it may come from elsewhere."""
    return "".join(character for character in str(who) if character.isprintable())[:_LONGEST_NAME]


def _who() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        name = str(os.getuid())
    return f"{name}@{platform.node()}"
