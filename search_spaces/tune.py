"""``sweep``: a study on Ray Tune, from the first trial or from wherever the ledger says it stopped."""

from __future__ import annotations

import errno
import operator
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from optuna.trial import TrialState

from routing.config import RunConfig
from routing.errors import InputError, RoutingError
from search_spaces.collect import Collector
from search_spaces.ledger import LEDGER_FILE, Ledger, done, mend_journal
from search_spaces.load import load_study
from search_spaces.plan import Blueprint, blueprint
from search_spaces.progress import Progress, duration
from search_spaces.ray_session import cluster_concurrency, local_concurrency, session
from search_spaces.results import (
    STUDY_FILE,
    check_unchanged,
    drop_leftovers,
    drop_models,
    locked,
    study_seed,
    write_environment,
    write_study,
)
from search_spaces.resume import enqueue_missing, next_proposal, replay, settle, total_trials, warm
from search_spaces.samplers import Proposer
from search_spaces.scheduler import Rule
from search_spaces.schema import AblationStudy, Study, SweepStudy, parse_constraint, parse_duration

DEFAULT_RUN = "routing.run:run"
_SIGNS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
_WORKER_LOSSES = 2
"""How often a trial is tried again when its worker or node dies."""


class SweepInterrupted(RoutingError):
    """A signal ended the sweep; everything finished is kept. ``exit_code`` is 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, number: int, out: Path) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; finished trials are kept in {out}, go on with --resume")
        self.exit_code = 128 + number


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
    run: str | Callable[..., Any] = DEFAULT_RUN,
) -> Path:
    """Run a study, sweep or ablation, and return its results folder.

    Args:
        study: a study, a study file, or the name of a shipped study.
        out: results folder; new, or that of an earlier call with ``resume``.
        trials: trials in all, instead of the study's; more than before extends a finished study.
        time_budget: seconds, or ``"30m"``; running trials are interrupted then and can be resumed.
        concurrency: trials at once; by default as many as this machine or cluster has room for.
        address: of a running Ray cluster; by default ``RAY_ADDRESS``, else a private one on this machine.
        resume: go on with what ``out`` holds.
        warm_start: other results folders whose trials inform the sampler.
        force: resume although the study file changed.
        storage: ``sqlite:///file.db`` or ``postgresql://...`` instead of the journal in ``out``.
        run: ``module:function`` (or an importable function) that trains a run, as ``routing.run.run`` does.

    Raises:
        InputError: bad input, in one line; nothing has been written.
        SweepInterrupted: SIGINT or SIGTERM; ``resume`` goes on.
        RoutingError: the disk is full, or Ray did not start.
    """
    study = study if isinstance(study, (SweepStudy, AblationStudy)) else load_study(study)
    study = _with_trials(study, trials)
    driver = _Driver(
        study,
        Path(out),
        budget=None if time_budget is None else _seconds(time_budget),
        concurrency=_concurrency(study, concurrency, address),
        address=address,
        resume=resume,
        warm_start=[Path(folder) for folder in warm_start],
        force=force,
        storage=storage,
        run=run if isinstance(run, str) else f"{run.__module__}:{run.__qualname__}",
    )
    try:
        return driver.drive()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RoutingError(f"{out}: the disk is full; make room, then go on with --resume") from None


def _with_trials(study: Study, trials: int | None) -> Study:
    if trials is None:
        return study
    if trials < 1:
        raise InputError(f"trials must be at least 1, not {trials}")
    if isinstance(study, AblationStudy):
        raise InputError("an ablation runs every arm under every seed; trials cannot be set")
    return study.model_copy(update={"trials": trials})


def _seconds(budget: float | str) -> float:
    try:
        return parse_duration(budget)
    except ValueError as error:
        raise InputError(f"time_budget: {error}") from None


def _concurrency(study: Study, concurrency: int | None, address: str | None) -> int | None:
    if concurrency is not None and concurrency < 1:
        raise InputError(f"concurrency must be at least 1, not {concurrency}")
    if address or os.environ.get("RAY_ADDRESS"):
        return concurrency
    return local_concurrency(study.resources, concurrency)


class _Driver:
    """One call of ``sweep``: owns the results folder while it runs."""

    def __init__(
        self,
        study: Study,
        out: Path,
        *,
        budget: float | None,
        concurrency: int | None,
        address: str | None,
        resume: bool,
        warm_start: list[Path],
        force: bool,
        storage: str | None,
        run: str,
    ) -> None:
        self.study, self.out, self.budget, self.address = study, out, budget, address
        self.concurrency, self.resume, self.warm_start, self.force = concurrency, resume, warm_start, force
        self.storage, self.run = storage, run
        self.plan: Blueprint = blueprint(study)
        self.rule = Rule(study.scheduler, study.objectives)
        self.collector = Collector(out, lambda labels: self.plan.configure(self.plan.space.restore(labels)))
        self.total = self.plan.total
        self.deadline: float | None = None
        self.signal: int | None = None
        self.disk_full = False

    def drive(self) -> Path:
        """Run what is missing; the tables are whole however it ends."""
        self._check_folder()
        with locked(self.out), _signals(self._interrupt) as self.catch_signals:
            notes = self._check_study()
            drop_leftovers(self.out)
            write_study(self.out, self.study)
            mended = mend_journal(self.out / LEDGER_FILE) if self.storage is None else None
            where = self.storage or str(self.out / LEDGER_FILE)
            self.ledger = Ledger(where, self.study.name, self.study.objectives)
            self.ledger.check_distributions(self.plan.space.distributions() if self.plan.samples else {})
            notes += [mended] if mended else []
            notes += settle(self.ledger, self.out, self.study.objectives, self.plan)
            for folder in self.warm_start:
                notes.append(warm(self.ledger, folder, self.study.objectives, self.plan.space))
            enqueue_missing(self.ledger, self.plan.enqueue[: self.plan.total])
            self.total = total_trials(self.ledger, self.plan)
            try:
                if self.total > len(done(self.ledger.trials())):
                    self._run_missing(notes)
                else:
                    for note in notes:
                        print(note, flush=True)
            finally:
                self.ledger.requeue_running("interrupted")
                self.collector.write(self.ledger.trials())
            if not self.should_stop():
                self._drop_models()
        if self.signal is not None:
            raise SweepInterrupted(self.signal, self.out)
        return self.out

    def check(self, values: dict[str, Any]) -> tuple[RunConfig, float] | str:
        """Return the run of a setting and its expected FLOPs, or why it may not run."""
        from routing.compute import expected_flops

        try:
            config = self.plan.configure(values)
            flops = expected_flops(config)
        except InputError as error:
            return str(error)
        for text in self.study.constraints if isinstance(self.study, SweepStudy) else ():
            _, sign, limit = parse_constraint(text)
            if not _SIGNS[sign](flops, limit):
                return f"{text} does not hold: expected {flops:.6g}"
        return config, flops

    def should_stop(self) -> bool:
        """Return whether a signal came, the disk is full or the time is over."""
        late = self.deadline is not None and time.monotonic() > self.deadline
        return late or self.disk_full or self.signal is not None

    def _check_folder(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: a file; --out is a folder")
        held = [name for name in (STUDY_FILE, LEDGER_FILE) if (self.out / name).exists()]
        if held and not self.resume:
            raise InputError(f"{self.out} holds a sweep already; go on with --resume, or choose another --out")
        for folder in self.warm_start:
            if not (folder / STUDY_FILE).is_file():
                raise InputError(f"warm start: {folder} is no results folder; it has no {STUDY_FILE}")

    def _check_study(self) -> list[str]:
        if not (self.out / STUDY_FILE).exists():
            return []
        return [f"study changed: {line}" for line in check_unchanged(self.out, self.study, self.force)]

    def _interrupt(self, number: int) -> None:
        self.signal = number

    def _drop_models(self) -> None:
        if self.study.keep_models != "all":
            front = self.collector.front_trials(self.study.objectives) if self.study.keep_models == "front" else set()
            drop_models(self.out, self.study.keep_models, front)

    def _disk_is_full(self) -> None:
        self.disk_full = True

    def _run_missing(self, notes: list[str]) -> None:
        with session(self.address, self.concurrency or 1, self.study.resources) as scratch:
            self.catch_signals()  # Ray has put its own handlers in place
            concurrency = self.concurrency or cluster_concurrency(self.study.resources)
            write_environment(self.out, self.study, concurrency, study_seed(self.study))
            proposer = Proposer(self.plan.space, self.study.objectives, self.plan.sampler, self.plan.samples)
            points = replay(self.ledger, proposer, self.rule, self.out, self.study.objectives)
            proposer.next_index = next_proposal(self.ledger)
            finished = len(done(self.ledger.trials()))
            progress = Progress(self.study.name, self.study.objectives, self.total, finished, points)
            for note in notes:
                progress.say(note)
            if self.budget is not None:
                self.deadline = time.monotonic() + self.budget
            with progress:
                self._tune(scratch, concurrency, proposer, progress)
            if self.disk_full:
                raise OSError(errno.ENOSPC, "a trial found no room for its files")
            if proposer.exhausted:
                progress.say(f"stopped after {progress.done} trials: {proposer.exhausted}")
            elif self.signal is None and self.should_stop():
                progress.say(f"time budget of {duration(self.budget or 0)} is over after {progress.done} trials")

    def _tune(self, scratch: Path, concurrency: int, proposer: Proposer, progress: Progress) -> None:
        from ray import tune

        from routing.trainable import RunTrainable
        from search_spaces.ray_parts import StudyCallback, StudyScheduler
        from search_spaces.searcher import LedgerSearch

        changed = threading.Event()

        def finished(number: int, state: TrialState, words: str, final: dict[str, Any] | None) -> None:
            points = [[point.get(o.metric) for o in self.study.objectives] for point in (final or {}).get("points", [])]
            progress.finished(number, state.name, words, [point for point in points if None not in point])
            changed.set()

        search = LedgerSearch(
            self.ledger,
            proposer,
            self.out,
            self.total,
            concurrency,
            check=self.check,
            run=self.run,
            on_finished=finished,
            on_disk_full=self._disk_is_full,
        )
        housekeeping = StudyCallback(self, search, progress, changed)
        resources = self.study.resources
        try:
            tune.run(
                RunTrainable,
                name="study",
                search_alg=search,
                scheduler=StudyScheduler(self.rule, search),
                stop=housekeeping.stopper,
                callbacks=[housekeeping],
                num_samples=-1,
                max_concurrent_trials=concurrency,
                resources_per_trial={"cpu": resources.cpu, "gpu": resources.gpu, **resources.custom},
                reuse_actors=True,
                max_failures=_WORKER_LOSSES,
                storage_path=str(scratch / "tune"),
                raise_on_failed_trial=False,
                verbose=0,
            )
        finally:
            search.close()


@contextmanager
def _signals(interrupt: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Turn the first SIGINT or SIGTERM into a clean stop; a second one acts as it always did.

    Yields the function that puts the handlers in place (again).
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _: FrameType | None) -> None:
        interrupt(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    def catch() -> None:
        for each in before:
            signal.signal(each, handle)

    catch()
    try:
        yield catch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
