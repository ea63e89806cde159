"""Opening a results folder: checks, its mirror, its study, its ledger, and the trials to be settled or queued in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from routing.errors import InputError
from routing.files.mirror import Mirror
from routing.files.results_folder import (
    ID_FILE,
    LEDGER_FILE,
    MIRROR_FILE,
    SET_ASIDE_FOLDER,
    STUDY_FILE,
    TRIALS_FILE,
    TRIALS_FOLDER,
)
from search_spaces.ledger.agreement import check_agreement, listed_trials, unknown_results
from search_spaces.ledger.folder import (
    check_mirror,
    check_unchanged,
    drop_leftovers,
    former_studies,
    keep_former_study,
    mark_mirror,
    read_id,
    write_study,
)
from search_spaces.ledger.ledger import Ledger, mend_journal, read_trials
from search_spaces.ledger.requests import settle_requests
from search_spaces.ledger.resume import (
    check_warm_source,
    drop_gone,
    enqueue_missing,
    retry_failed,
    settle,
    warm,
)
from search_spaces.signals import go_on
from search_spaces.study.load import load_study
from search_spaces.study.schema import Study

if TYPE_CHECKING:
    from search_spaces.plan import Blueprint

_SHOWN = 10


@dataclass(frozen=True)
class Opening:
    """Opens the results folder ``out`` of a sweep; the fields are explained at ``search_spaces.sweep``."""

    study: Study
    plan: Blueprint
    out: Path
    mirror: Mirror | None
    resume: bool
    warm_start: list[Path]
    force: bool
    storage: str | None
    plan_of: Callable[[Study], Blueprint]
    retry_failed: bool = False

    def check(self) -> None:
        """Check that the folder and its mirror are free for this sweep; nothing is written.

        Raises:
            InputError: they are not, or a folder to start from is no results folder of such a study.
        """
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: a file; --out is a folder")
        if self.mirror is not None:
            check_mirror(self.out, self.mirror)
        held = any((self.out / name).exists() for name in (STUDY_FILE, LEDGER_FILE))
        if held and not self.resume:
            raise InputError(f"{self.out} holds a sweep already; {go_on()}, or choose another --out")
        if self.mirror is not None and not self.resume and self.mirror.holds(STUDY_FILE):
            raise InputError(f"{self.mirror.url} holds a sweep already; {go_on()}, or choose another --out")
        for folder in (
            self.warm_start if not held else ()
        ):  # on --resume it was taken over already, and may have been deleted
            if not (folder / STUDY_FILE).is_file():
                raise InputError(f"warm start: {folder} is no results folder; it has no {STUDY_FILE}")
            check_warm_source(folder, self.study.objectives)

    def open(self) -> tuple[Ledger, bool, list[str]]:
        """Return the ledger, settled and with its queue filled; whether it is new; and lines on what was done.

        The caller has locked the folder.

        Raises:
            InputError: the study has changed, or the ledger is not the one of the folder; neither is written to.
        """
        self._fetch()
        is_new = not (self.out / STUDY_FILE).exists()
        notes = [] if is_new else self._changes()
        journal = self.out / LEDGER_FILE
        if self.storage is None and not is_new and journal.exists() and journal.stat().st_size:
            self._check_agreement(read_trials(journal, self.study.name), str(journal))
        drop_leftovers(self.out)
        mended = mend_journal(journal) if self.storage is None else None
        ledger = self._open_ledger()
        if self.storage is not None and not is_new:
            self._check_agreement(ledger.trials(), ledger.where)
        if notes:
            keep_former_study(self.out)
        write_study(self.out, self.study)
        notes += [mended] if mended else []
        notes += self._unknown(ledger)
        notes += settle(ledger, self.out, self.study.objectives, self.plan)
        notes += retry_failed(ledger) if self.retry_failed else []
        notes += settle_requests(ledger, self.out, self.plan.space)
        notes += drop_gone(ledger, self.plan.space)
        notes += [warm(ledger, folder, self.study.objectives, self.plan.space) for folder in self.warm_start]
        enqueue_missing(ledger, self.plan.enqueue[: self.plan.total])
        return ledger, is_new and ledger.is_new, notes

    def withdraw(self, ledger: Ledger) -> None:
        """Remove all files of a study that has not started."""
        ledger.delete()
        for name in (STUDY_FILE, LEDGER_FILE, ID_FILE, MIRROR_FILE):
            (self.out / name).unlink(missing_ok=True)

    def _fetch(self) -> None:
        """Update the folder from its mirror: the sweep may have been continued on another machine."""
        if self.mirror is not None:
            mark_mirror(self.out, self.mirror)
            self.mirror.pull_longer(self.out, LEDGER_FILE)
            self.mirror.pull(self.out)

    def _changes(self) -> list[str]:
        """Return how the study differs from the one the folder was made for, where that is accepted."""
        return [f"study changed: {line}" for line in check_unchanged(self.out, self.study, self.force)]

    def _check_agreement(self, trials: Sequence[FrozenTrial], where: str) -> None:
        plans = [self.plan, *self._former_plans()]
        check_agreement(trials, self.out, self.study.objectives, plans, where)

    def _former_plans(self) -> Iterator[Blueprint]:
        """Yield what the study was before: as it stands in the folder, and before each ``--force``."""
        for path in (self.out / STUDY_FILE, *reversed(former_studies(self.out))):
            with suppress(InputError):  # of an older version: what does not read explains no trial
                yield self.plan_of(load_study(path))

    def _unknown(self, ledger: Ledger) -> list[str]:
        """Return a line on finished trials whose entries the ledger has lost, and what becomes of them."""
        trials, listed = ledger.trials(), listed_trials(self.out)
        numbers = unknown_results(trials, self.out)
        if not numbers and listed <= len(trials):
            return []
        lost = (
            f" and with it {listed - len(trials)} of {listed} trials of {TRIALS_FILE}" if listed > len(trials) else ""
        )
        shown = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
        finished = (
            f": it does not know {len(numbers)} finished trials of {TRIALS_FOLDER}/ ({shown}); one whose setting comes "
            f"again keeps its result, another one goes to {SET_ASIDE_FOLDER}/"
        )
        return [f"the end of {ledger.where} is lost{lost}{finished if numbers else ': none of them had finished'}"]

    def _open_ledger(self) -> Ledger:
        """Open the ledger this study goes on in; nothing of a refused one is written to.

        Raises:
            InputError: it is not the one that knows the folder's trials: their numbers would be given out again.
        """
        journal, trials = self.out / LEDGER_FILE, self.out / TRIALS_FOLDER
        is_elsewhere = read_id(self.out) is not None
        if self.storage is None and is_elsewhere and not journal.exists():
            raise InputError(f"{self.out} keeps its ledger elsewhere; give the --storage it was started with")
        if self.storage is not None and journal.exists() and not is_elsewhere:
            raise InputError(f"{self.out} keeps its ledger in {LEDGER_FILE}; leave out --storage")
        has_trials = trials.is_dir() and any(trials.iterdir())
        if self.storage is None and has_trials and not journal.exists():
            raise InputError(f"{trials} is there, but no {LEDGER_FILE} that knows its trials; choose another --out")
        where = self.storage or str(journal)
        ledger = Ledger(where, self.study.name, self.study.objectives, must_exist=has_trials)
        if self.storage is not None:
            ledger.claim(self.out, self.resume)
        ledger.check_distributions(self.plan.space.distributions() if self.plan.samples else {})
        return ledger
