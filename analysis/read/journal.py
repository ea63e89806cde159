"""Optuna's own view of the journal of a results folder, for what only Optuna can say of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna
    from optuna.storages import JournalStorage


def open_journal(path: Path) -> tuple[optuna.Study, JournalStorage]:
    """Return the one study of a journal and its storage; whatever Optuna raises for a damaged one is raised."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    # to open a trial asks the sampler: this one has nothing to work out
    return optuna.load_study(study_name=None, storage=storage, sampler=optuna.samplers.RandomSampler()), storage
