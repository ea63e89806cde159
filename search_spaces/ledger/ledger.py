"""The ledger: an Optuna study on disk, the only record of which trials ran and how they ended.

Starting, resuming, extending and warm starting are one mechanism: open the ledger, mark every RUNNING trial as FAIL and
enqueue its setting again with ``retry_of``, then run the trials that are missing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tempfile
import warnings
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from routing.errors import InputError
from routing.files.results_folder import WARM_START_ATTR, WARM_START_REASON
from routing.files.secrets import error_without_secrets, without_secrets
from search_spaces.ledger.folder import read_id, write_id
from search_spaces.signals import go_on

if TYPE_CHECKING:
    from routing.objectives import Objective

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

RETRY_OF = "retry_of"
RETRIED_AS = "retried"
REPLACES = "replaces"
REASON = "reason"
ENQUEUED = "enqueued"
PROPOSAL = "proposal"
EXPECTED_FLOPS = "expected_flops"
LOSSES = "losses"
OWNER = "results_folder"
LOST = "the worker was lost"
TIMEOUT = "timeout: "
"""Begin the reasons of trials that failed so."""
GONE = "no longer in the study"
"""Reason of a queued setting that was removed from the study before it ran; the trial is not counted."""


class _HeldElsewhere(JournalFileOpenLock):
    """No lock per write: the driver's lock on the results folder already excludes every other writer.

    Optuna's own lock is a file; a killed driver leaves it behind, and the next driver would wait 30 s for it.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class _Journal(JournalFileBackend):
    """A write that fails on a full disk is undone: the next one would otherwise be appended to half a line.

    There is no other writer, so everything beyond the old end of the file belongs to the failed write.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, lock_obj=_HeldElsewhere(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        end = os.path.getsize(self._path)
        try:
            super().append_logs(logs)
        except OSError:
            with suppress(OSError):
                os.truncate(self._path, end)
            raise


def open_storage(where: str) -> BaseStorage:
    """Open ``path/ledger.journal``, ``sqlite:///file.db`` or ``postgresql://...``.

    Raises:
        InputError: a storage that cannot be opened, in one line.
    """
    try:
        if "://" in where:
            return _database(where)
        return JournalStorage(_Journal(where))
    except Exception as error:
        line = next(iter(error_without_secrets(error, where).strip().splitlines()), type(error).__name__)
        raise InputError(f"ledger {without_secrets(where)} cannot be opened: {line}") from None


def _database(url: str) -> RDBStorage:
    if (
        importlib.util.find_spec("psycopg") is not None
    ):  # which driver is the default depends on the version of SQLAlchemy
        url = re.sub("^postgres(ql)?://", "postgresql+psycopg://", url)
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})  # an idle connection may have been cut
    except ImportError:
        raise InputError(
            "the driver of this database is not installed (for postgresql://: pip install 'routing-sweeps[postgresql]')"
        ) from None


def mend_journal(path: Path) -> str | None:
    """Cut a half-written last line off a journal, as a killed driver or a full disk leaves it; return what was done.

    Raises:
        InputError: a line before the last is not readable.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    good = _whole_entries(path, content)
    if good == len(content):
        return None
    with path.open("r+b") as file:
        file.truncate(good)
        os.fsync(file.fileno())
    return f"{path.name}: the last entry was cut off and is dropped ({len(content) - good} bytes)"


def _whole_entries(path: Path, content: bytes) -> int:
    """Return how many bytes of a journal are whole entries; only the last may be cut off."""
    good = 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except (ValueError, RecursionError):
            whole = False
        if not whole:
            if good + len(line) < len(content):
                raise InputError(f"{path}:{number}: not a readable ledger entry; the file is damaged")
            break
        good += len(line)
    return good


def read_trials(path: Path, name: str) -> list[FrozenTrial]:
    """Return the trials of a journal without changing it: a sweep may be writing it, or its folder may be read-only.

    Raises:
        InputError: it cannot be read, or holds no study of this name.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror or error}") from None
    with tempfile.TemporaryDirectory(prefix="routing-ledger-") as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(content[: _whole_entries(path, content)])
        try:
            storage = open_storage(str(copy))
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(path))) from None
        try:
            return optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        except KeyError:
            raise InputError(f"{path} holds no study '{name}'") from None


class Ledger:
    """Reads and writes the trials of one study.

    Args:
        where: journal path or storage URL.
        name: study name in the storage.
        objectives: goals and names of the values, in order.
        must_exist: refuse to create it.

    Raises:
        InputError: the storage holds another study, or one with other objectives.
    """

    def __init__(self, where: str, name: str, objectives: Sequence[Objective], must_exist: bool = False) -> None:
        self.storage = open_storage(where)
        self.where = where = without_secrets(where)
        self.name = name
        found = [study.study_name for study in self.storage.get_all_studies()]
        if "://" not in where and found and name not in found:
            raise InputError(f"{where} is the ledger of another study, '{found[0]}', not of '{name}'")
        if must_exist and name not in found:
            raise InputError(f"{where} holds no study '{name}'")
        directions = [objective.goal for objective in objectives]
        self.is_new = name not in found
        if not self.is_new:
            known = optuna.load_study(study_name=name, storage=self.storage)
            stored = [direction.name.lower() for direction in known.directions]
            names = known.metric_names or [o.metric for o in objectives]
            if stored != directions or names != [o.metric for o in objectives]:
                pairs = ", ".join(f"{goal} {metric}" for goal, metric in zip(stored, names, strict=False))
                raise InputError(
                    f"{where} was written for other objectives ({pairs}); they cannot change within a study"
                )
        self.study = optuna.create_study(
            storage=self.storage, study_name=name, directions=directions, load_if_exists=True
        )
        if self.study.metric_names is None:
            self.study.set_metric_names([objective.metric for objective in objectives])
        self._study_id = self.storage.get_study_id_from_name(name)

    def claim(self, out: Path, resume: bool) -> None:
        """Record in an external storage which results folder the study belongs to.

        Raises:
            InputError: it belongs to another folder, or it is there already and ``resume`` is not given.
        """
        held = self.study.user_attrs.get(OWNER)
        if held is not None and held["id"] != read_id(out):
            raise InputError(
                f"{self.where}: its study '{self.name}' belongs to {held['folder']}; "
                "go on there with --resume, or choose another --storage"
            )
        if not self.is_new and not resume:
            raise InputError(
                f"{self.where} holds a study '{self.name}' already; {go_on()}, or choose another --storage"
            )
        self.study.set_user_attr(OWNER, {"id": read_id(out) or write_id(out), "folder": str(out.resolve())})

    def delete(self) -> None:
        """Delete the study with all its rows from the storage."""
        self.storage.delete_study(self._study_id)

    def trials(self, states: tuple[TrialState, ...] | None = None) -> list[FrozenTrial]:
        """Return the rows of the ledger, by number."""
        return self.storage.get_all_trials(self._study_id, deepcopy=False, states=states)

    def trial(self, number: int) -> FrozenTrial:
        """Return one row of the ledger."""
        return self.storage.get_trial(self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number))

    def give_up_or_requeue(self, reason: str, losses: int, got_on: Collection[int] = ()) -> None:
        """Mark every RUNNING trial as FAIL; enqueue again those that have been lost at most ``losses`` times so far.

        Args:
            got_on: trials that finished a new epoch since they last started: their losses are counted anew.
        """
        for trial in self.trials((TrialState.RUNNING,)):
            count = 0 if trial.number in got_on else trial.user_attrs.get(LOSSES, 0) + 1
            if count > losses:
                self.finish(trial.number, TrialState.FAIL, None, {REASON: reason})
            else:
                self.requeue(trial, reason, {LOSSES: count})

    def requeue(self, trial: FrozenTrial, reason: str, attrs: dict[str, Any] | None = None) -> None:
        """Mark one RUNNING trial as FAIL and enqueue its setting again, with further ``attrs``."""
        # the new row first: if the driver is killed in between, the setting is queued twice rather than lost
        again = {key: value for key, value in trial.user_attrs.items() if key not in (REASON, RETRIED_AS)}
        again |= attrs or {}
        waiting = {t.user_attrs.get(RETRY_OF) for t in self.trials((TrialState.WAITING,))}
        if trial.number not in waiting:
            self.enqueue(setting_of(trial), {**again, RETRY_OF: trial.number})
        self.finish(trial.number, TrialState.FAIL, None, {REASON: reason, RETRIED_AS: True})

    def enqueue(self, params: dict[str, Any], attrs: dict[str, Any] | None = None) -> None:
        """Add a WAITING trial with given (perhaps partial) parameters."""
        self.study.enqueue_trial(params, user_attrs=attrs)

    def start(
        self,
        params: dict[str, Any],
        distributions: dict[str, BaseDistribution],
        attrs: dict[str, Any],
        waiting: FrozenTrial | None = None,
    ) -> int:
        """Write a RUNNING trial, a new one or the ``waiting`` one, and return its number."""
        if waiting is None:
            template = create_trial(
                state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=attrs
            )
            trial_id = self.storage.create_new_trial(self._study_id, template_trial=template)
            return self.storage.get_trial_number_from_id(trial_id)
        self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        for name, value in params.items():
            internal = distributions[name].to_internal_repr(value)
            self.storage.set_trial_param(waiting._trial_id, name, internal, distributions[name])
        self._set_attrs(waiting._trial_id, {k: v for k, v in attrs.items() if waiting.user_attrs.get(k) != v})
        return waiting.number

    def finish(
        self, number: int, state: TrialState, values: Sequence[float] | None, attrs: dict[str, Any] | None = None
    ) -> None:
        """Write the end of a trial; its attributes first, because Optuna refuses changes to a finished row."""
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self._set_attrs(trial_id, attrs or {})
        self.storage.set_trial_state_values(trial_id, state, values)

    def add_finished(self, trial: FrozenTrial, source: str, distributions: dict[str, BaseDistribution]) -> None:
        """Add a finished trial of another study (warm start); only the sampler uses it."""
        self.study.add_trial(
            create_trial(
                state=trial.state,
                values=trial.values,
                params=trial.params,
                distributions={name: distributions[name] for name in trial.params},
                user_attrs={
                    WARM_START_ATTR: warm_mark(source, trial.number),
                    REASON: f"{WARM_START_REASON}{Path(source).name}",
                },
            )
        )

    def check_distributions(self, distributions: dict[str, BaseDistribution]) -> None:
        """Raise ``InputError`` when a parameter no longer fits this ledger: Optuna cannot change a list of choices."""
        for trial in self.trials():
            for name, old in trial.distributions.items():
                try:
                    check_distribution_compatibility(old, distributions.get(name, old))
                except ValueError:
                    raise InputError(
                        f"{self.where}: the choices of {name} changed; start another --out with --warm-start"
                    ) from None

    def _set_attrs(self, trial_id: int, attrs: dict[str, Any]) -> None:
        for key, value in attrs.items():
            self.storage.set_trial_user_attr(trial_id, key, value)


def warm_mark(source: str, number: int) -> str:
    """Return the mark under which a trial of another results folder is taken over."""
    return f"{source} trial {number}"


def setting_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return the setting of a row as far as it is known: the values it was enqueued with, and its parameters."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def done(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials of the study that are over: finished, not queued again, not of another or an older study."""
    replaced = {trial.user_attrs.get(REPLACES) for trial in trials}
    return [
        trial
        for trial in trials
        if trial.state.is_finished()
        and RETRIED_AS not in trial.user_attrs
        and WARM_START_ATTR not in trial.user_attrs
        and trial.user_attrs.get(REASON) != GONE
        and trial.number not in replaced
    ]
