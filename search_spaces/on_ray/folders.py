"""The folder of a trial that starts: a new one, or that of the attempt it goes on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from routing.config.script import AnyRun
from routing.files.mirror import Mirror
from routing.files.results_folder import CHECKPOINT_FILE, METRICS_FILE, TRIALS_FOLDER, trial_folder
from search_spaces.ledger.folder import holds_run, set_aside
from search_spaces.ledger.ledger import REPLACES, RETRY_OF


def prepare_folder(out: Path, mirror: Mirror | None, number: int, attrs: dict[str, Any], config: AnyRun) -> Path:
    """Return the folder of a trial, there and fit for its run.

    A trial that is queued again gets the folder of its first attempt. One that was given up keeps its own; what runs in
    its place goes on with its checkpoint. A result of another run is set aside.

    Args:
        attrs: of the trial in the ledger.
    """
    folder, retry_of = trial_folder(out, number), attrs.get(RETRY_OF)
    earlier = trial_folder(out, retry_of) if retry_of is not None else None
    if mirror is not None and earlier is not None:  # a node's latest upload may be the only copy
        mirror.pull(earlier, f"{TRIALS_FOLDER}/{earlier.name}", replace=True)
    if earlier is not None and earlier.exists() and earlier != folder:
        shutil.rmtree(folder, ignore_errors=True)
        earlier.rename(folder)
        if mirror is not None:  # the node that continues it may see only the mirror
            mirror.push(folder, f"{TRIALS_FOLDER}/{folder.name}")
            mirror.drop_folder(f"{TRIALS_FOLDER}/{earlier.name}")
    elif folder.exists() and not holds_run(folder, config):
        if (folder / METRICS_FILE).exists():
            set_aside(out, folder)
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    given_up = trial_folder(out, attrs.get(REPLACES, -1)) / CHECKPOINT_FILE
    if retry_of is None and given_up.exists():
        given_up.replace(folder / CHECKPOINT_FILE)
        if mirror is not None:
            mirror.push(folder, f"{TRIALS_FOLDER}/{folder.name}")
    return folder
