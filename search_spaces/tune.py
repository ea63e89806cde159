"""``sweep``: a study on Ray Tune, from its first trial or from where its ledger ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError

from routing.errors import InputError, RoutingError, is_disk_full
from routing.files.mirror import Mirror, is_url
from routing.files.secrets import without_secrets
from search_spaces.driver import Driver
from search_spaces.on_ray.reach import check_address
from search_spaces.on_ray.session import cluster_address, local_concurrency
from search_spaces.plan import check_device
from search_spaces.signals import go_on
from search_spaces.study.ablation import planned_trials
from search_spaces.study.load import load_study
from search_spaces.study.schema import AblationStudy, Study, SweepStudy, parse_duration
from search_spaces.study.script import ScriptStudy

RESULTS_FOLDER = Path("results")
"""Default parent of results folders."""
DEFAULT_RUN = "routing.runner:run"
SCRIPT_RUN = "routing.script:run"


def sweep(
    study: Study | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    trials: int | None = None,
    time_budget: float | str | None = None,
    concurrency: int | None = None,
    address: str | None = None,
    resume: bool = False,
    warm_start: Sequence[str | os.PathLike[str]] = (),
    force: bool = False,
    storage: str | None = None,
    retry_failed: bool = False,
    keep_going: bool = False,
    allow_mixed_versions: bool = False,
    run: str | Callable[..., Any] = DEFAULT_RUN,
) -> Path:
    """Run a study, sweep or ablation, and return its results folder.

    Args:
        study: a study, a study file, or the name of a shipped study.
        out: results folder; new, or that of an earlier call with ``resume``. A URL (``s3://bucket/digits``) is for
            nodes that share no folder: the work is done in ``results/digits`` and copied there.
        trials: trials in all, instead of the study's; more than before extends a finished study. Of an ablation, its
            first ones only, all arms under the first seed before the next; ``resume`` without it runs the rest.
        time_budget: seconds, or ``"30m"``, from the first trial on; what runs then is interrupted, to be resumed.
        concurrency: trials at once; by default as many as this machine or cluster has room for.
        address: of a running Ray cluster; by default ``RAY_ADDRESS``, else a private one on this machine.
        resume: go on with what ``out`` holds.
        warm_start: other results folders whose trials inform the sampler.
        force: resume although the study file changed.
        storage: ``sqlite:///file.db`` or ``postgresql://...`` instead of the journal in ``out``; a study in it belongs
            to one ``out``, which may move.
        retry_failed: run failed trials of ``out`` again.
        keep_going: go on although three trials in a row failed for the same reason.
        allow_mixed_versions: also run on nodes of a cluster with another version of this package.
        run: ``module:function`` (or an importable function) that trains a run, as ``routing.runner.run`` does.

    Raises:
        InputError: bad input, in one line; nothing has been written.
        SweepInterrupted: SIGINT or SIGTERM; ``resume`` goes on.
        RoutingError: the disk is full, Ray did not start, one trial after the other fails in the same way, or no node
            is fit for any.
    """
    study = study if isinstance(study, (SweepStudy, AblationStudy)) else load_study(study)
    check_device(study)
    total = planned_trials(study, trials)
    if isinstance(study, SweepStudy):
        study = study.model_copy(update={"trials": total})
    if run == DEFAULT_RUN and isinstance(study, ScriptStudy):
        run = SCRIPT_RUN
    mirror = Mirror(str(out)) if is_url(out) else None
    driver = Driver(
        study,
        Path(out) if mirror is None else RESULTS_FOLDER / mirror.name,
        mirror=mirror,
        trials=trials,
        budget=None if time_budget is None else _seconds(time_budget),
        concurrency=_concurrency(study, concurrency, address),
        address=address,
        resume=resume,
        warm_start=[Path(folder) for folder in warm_start],
        force=force,
        storage=storage,
        retry_failed=retry_failed,
        keep_going=keep_going,
        allow_mixed_versions=allow_mixed_versions,
        run=run if isinstance(run, str) else f"{run.__module__}:{run.__qualname__}",
    )
    try:
        return driver.drive()
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise RoutingError(f"{out}: the disk is full; make room, then {go_on()}") from None
    except Exception as error:
        if not isinstance(error, StorageInternalError) and not type(error).__module__.startswith("sqlalchemy."):
            raise
        why = next(iter(str(error.__cause__ or error).strip().splitlines()), "no reason is given")
        where = without_secrets(storage or str(out))
        raise RoutingError(f"{where}: the ledger cannot be read or written: {why}; {go_on()}") from None


def _seconds(budget: float | str) -> float:
    try:
        return parse_duration(budget)
    except ValueError as error:
        raise InputError(f"time_budget: {error}") from None


def _concurrency(study: Study, concurrency: int | None, address: str | None) -> int | None:
    if concurrency is not None and concurrency < 1:
        raise InputError(f"concurrency must be at least 1, not {concurrency}")
    joined = cluster_address(address)
    if joined is not None:
        check_address(joined)
        return concurrency
    return local_concurrency(study.resources, concurrency)
