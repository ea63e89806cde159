"""``Driver``: one call of ``sweep``; owns the results folder while it runs."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from routing.commands.console import duration
from routing.config.run import RunConfig
from routing.errors import InputError, RoutingError
from routing.files.mirror import Mirror
from search_spaces.ledger.folder import (
    ID_FILE,
    MIRROR_FILE,
    STUDY_FILE,
    TRIALS_FOLDER,
    check_mirror,
    check_unchanged,
    drop_leftovers,
    drop_models,
    keep_former_study,
    locked,
    mark_mirror,
    read_id,
    study_seed,
    write_environment,
    write_study,
)
from search_spaces.ledger.ledger import LEDGER_FILE, Ledger, done, mend_journal
from search_spaces.ledger.resume import (
    check_warm_source,
    drop_gone,
    enqueue_missing,
    next_proposal,
    replay,
    settle,
    settle_running,
    total_trials,
    warm,
)
from search_spaces.ledger.tables import Collector, values_of
from search_spaces.on_ray.session import cluster_address, cluster_concurrency, machine_gpus, session, start_together
from search_spaces.plan import Blueprint, blueprint, broken_constraint
from search_spaces.progress import Progress
from search_spaces.search.proposer import Proposer
from search_spaces.search.rules import rule_of
from search_spaces.signals import SweepInterrupted, clean_stop
from search_spaces.study.schema import Study

_WORKER_LOSSES = 2
"""How often a trial is tried again when its worker or node dies."""
_SEGMENT = 2000
"""Trials of one Ray Tune run; it remembers every trial, so that a long study would fill the driver's memory."""


class Driver:
    """One call of ``sweep``, with its arguments checked one by one; what they mean: ``search_spaces.sweep``."""

    def __init__(
        self,
        study: Study,
        out: Path,
        *,
        mirror: Mirror | None,
        trials: int | None,
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
        self.storage, self.run, self.mirror = storage, run, mirror
        self.plan: Blueprint = blueprint(study, trials)
        self.rule = rule_of(study.scheduler, study.objectives)
        self.collector = Collector(
            out, lambda labels: self.plan.configure(self.plan.space.restore(labels)), study.objectives
        )
        self.total = self.plan.total
        self.deadline: float | None = None
        self.signal: int | None = None
        self.disk_full = False
        self._data: list[str] = []

    def drive(self) -> Path:
        """Run what is missing; the tables are whole however it ends."""
        self._check_folder()
        self._check_data()
        with locked(self.out), clean_stop(self._interrupt) as self.catch_signals:
            self._fetch()
            notes, is_new, withdrawn = self._check_study(), not (self.out / STUDY_FILE).exists(), False
            drop_leftovers(self.out)
            mended = mend_journal(self.out / LEDGER_FILE) if self.storage is None else None
            self.ledger = self._open_ledger()
            if notes:
                keep_former_study(self.out)
            write_study(self.out, self.study)
            notes = [*self._data, *notes]
            notes += [mended] if mended else []
            notes += settle(self.ledger, self.out, self.study.objectives, self.plan)
            notes += drop_gone(self.ledger, self.plan.space)
            for folder in self.warm_start:
                notes.append(warm(self.ledger, folder, self.study.objectives, self.plan.space))
            enqueue_missing(self.ledger, self.plan.enqueue[: self.plan.total])
            self.total = total_trials(self.ledger, self.plan)
            try:
                if self._missing():
                    self._run_missing(notes)
                else:
                    for note in notes:
                        print(note, flush=True)
            except InputError:  # no cluster answers, or none has room: nothing has run, and nothing blocks another try
                if is_new and self.ledger.is_new:
                    self._withdraw()
                    withdrawn = True
                raise
            finally:
                if not withdrawn:
                    settle_running(self.ledger, self.out, self.study.objectives, self.plan)
                    drop_leftovers(self.out)
                    self.publish()
            if not self.should_stop():
                self._drop_models()
            print(f"{self.out}: {self.collector.summary()}", file=sys.stderr)
        if self.signal is not None:
            raise SweepInterrupted(self.signal, self.out)
        return self.out

    def check(self, values: dict[str, Any]) -> tuple[RunConfig, float] | str:
        """Return the run of a setting and its expected FLOPs, or why it may not run."""
        from routing.evaluation.compute import expected_flops

        try:
            config = self.plan.configure(values)
            flops = expected_flops(config)
        except InputError as error:
            return str(error)
        broken = broken_constraint(self.study, flops)
        return (config, flops) if broken is None else f"{broken} does not hold: expected {flops:.6g}"

    def publish(self) -> None:
        """Write the tables, and copy them and the ledger to the mirror.

        Raises:
            RoutingError: the mirror does not answer; the tables are written.
        """
        self.collector.write(self.ledger.trials())
        if self.mirror is not None:
            self.mirror.push(self.out, deep=False)

    def start_clock(self) -> None:
        """Count the time budget from now on; the first trial that starts calls it."""
        if self.budget is not None and self.deadline is None:
            self.deadline = time.monotonic() + self.budget

    def should_stop(self) -> bool:
        """Return whether a signal came, the disk is full or the time is over."""
        late = self.deadline is not None and time.monotonic() > self.deadline
        return late or self.disk_full or self.signal is not None

    def _check_folder(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: a file; --out is a folder")
        if self.mirror is not None:
            check_mirror(self.out, self.mirror)
        held = [name for name in (STUDY_FILE, LEDGER_FILE) if (self.out / name).exists()]
        if held and not self.resume:
            raise InputError(f"{self.out} holds a sweep already; go on with --resume, or choose another --out")
        if self.mirror is not None and not self.resume and self.mirror.holds(STUDY_FILE):
            raise InputError(f"{self.mirror.url} holds a sweep already; go on with --resume, or choose another --out")
        for folder in self.warm_start if not held else ():  # later it may have been taken over, and be gone
            if not (folder / STUDY_FILE).is_file():
                raise InputError(f"warm start: {folder} is no results folder; it has no {STUDY_FILE}")
            check_warm_source(folder, self.study.objectives)

    def _check_data(self) -> None:
        """Fail now, not in every trial, when data of the study are not there; nodes may have their own."""
        datasets = {config.dataset.model_dump_json(): config.dataset for config in self._runs_of_every_data_set()}
        for dataset in datasets.values():
            if cluster_address(self.address) is None:
                dataset.check()
            else:
                dataset.info()
        lines = dict.fromkeys(dataset.describe() for dataset in datasets.values())
        self._data = [line for line in lines if line]

    def _runs_of_every_data_set(self) -> Iterator[RunConfig]:
        """Yield the runs of an ablation, or those at the corners of a search."""
        if self.plan.samples:
            yield from map(self.plan.configure, self.plan.space.corners())
        else:
            yield from map(self.plan.configure, map(self.plan.space.restore, self.plan.enqueue))

    def _fetch(self) -> None:
        """Bring the folder up to its mirror: another machine may have gone on with it."""
        if self.mirror is not None:
            mark_mirror(self.out, self.mirror)
            self.mirror.pull_longer(self.out, LEDGER_FILE)
            self.mirror.pull(self.out)

    def _check_study(self) -> list[str]:
        if not (self.out / STUDY_FILE).exists():
            return []
        return [f"study changed: {line}" for line in check_unchanged(self.out, self.study, self.force)]

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

    def _withdraw(self) -> None:
        """Leave nothing of a study behind that has not started."""
        self.ledger.delete()
        for name in (STUDY_FILE, LEDGER_FILE, ID_FILE, MIRROR_FILE):
            (self.out / name).unlink(missing_ok=True)

    def _interrupt(self, number: int) -> None:
        self.signal = number

    def _drop_models(self) -> None:
        if self.study.keep_models != "all":
            front = self.collector.front_trials() if self.study.keep_models == "front" else set()
            if front or self.study.keep_models == "none":
                for path in drop_models(self.out, self.study.keep_models, front):
                    if self.mirror is not None:
                        self.mirror.drop(path.relative_to(self.out).as_posix())

    def _disk_is_full(self) -> None:
        self.disk_full = True

    def _run_missing(self, notes: list[str]) -> None:
        with session(self.address, self.concurrency or 1, self.study.resources) as scratch:
            self.catch_signals()  # Ray has put its own handlers in place
            concurrency = self.concurrency or cluster_concurrency(self.study.resources)
            start_together(concurrency)
            write_environment(self.out, self.study, concurrency, study_seed(self.study))
            proposer, points = self._replayed()
            finished = len(done(self.ledger.trials()))
            progress = Progress(self.study.name, self.study.objectives, self.total, finished, points)
            for note in [*notes, *self._unused_gpus()]:
                progress.say(note)
            with progress:
                segment = 0
                while not self.should_stop() and not proposer.exhausted and (left := self._missing()):
                    lost = self._tune(scratch / f"tune{segment}", concurrency, min(left, _SEGMENT), proposer, progress)
                    segment += 1
                    if lost is not None:
                        progress.say(lost)
                        proposer, _ = self._replayed()
                        progress.done = len(done(self.ledger.trials()))
            if self.disk_full:
                raise OSError(errno.ENOSPC, "a trial found no room for its files")
            if proposer.exhausted:
                progress.say(f"stopped after {progress.done} trials: {proposer.exhausted}")
            elif self.signal is None and self.should_stop():
                progress.say(f"time budget of {duration(self.budget or 0)} is over after {progress.done} trials")

    def _unused_gpus(self) -> list[str]:
        """Return a line that says so when this machine has GPUs and no trial gets a share of one."""
        count = 0 if self.study.resources.gpu or cluster_address(self.address) is not None else machine_gpus()
        return [f"no trial uses the {count} GPU(s) of this machine: resources.gpu is 0"] if count else []

    def _replayed(self) -> tuple[Proposer, list[list[float]]]:
        """Return a proposer that knows what the ledger knows, and the points found so far; the rungs are filled too."""
        self.rule = rule_of(self.study.scheduler, self.study.objectives)
        proposer = Proposer(self.plan.space, self.study.objectives, self.plan.sampler, self.plan.samples)
        points = replay(self.ledger, proposer, self.rule, self.out, self.study.objectives)
        proposer.next_index = next_proposal(self.ledger)
        return proposer, points

    def _collect(self, number: int, state: TrialState) -> None:
        """Fetch what a trial left behind the mirror; its checkpoint is of use only while it runs."""
        if self.mirror is None:
            return
        from routing.training.checkpoint import CHECKPOINT_FILE

        name = f"{TRIALS_FOLDER}/{number}"
        (self.out / name / CHECKPOINT_FILE).unlink(missing_ok=True)  # of an earlier attempt, fetched when it went on
        if state != TrialState.COMPLETE:
            self.mirror.drop(f"{name}/{CHECKPOINT_FILE}")
        self.mirror.pull(self.out / name, name, replace=True)

    def _missing(self) -> int:
        return max(self.total - len(done(self.ledger.trials())), 0)

    def _tune(self, scratch: Path, concurrency: int, limit: int, proposer: Proposer, progress: Progress) -> str | None:
        """Start ``limit`` trials on Ray Tune and see them end; return why they were lost, should Ray Tune end early.

        What was running is queued again then, as by a resumed sweep; a trial that was lost too often fails.
        """
        from ray import tune
        from ray.exceptions import RayError

        from routing.trainable import RunTrainable
        from search_spaces.on_ray.parts import StopNow, StudyCallback, StudyScheduler
        from search_spaces.on_ray.searcher import LedgerSearch

        changed = threading.Event()

        def finished(number: int, state: TrialState, words: str, final: dict[str, Any] | None) -> None:
            try:
                self._collect(number, state)
            except RoutingError as error:  # resume fetches it, or runs the trial again
                progress.say(f"trial {number}: {error}")
            progress.finished(number, state.name, words, values_of(final or {}, self.study.objectives))
            changed.set()

        search = LedgerSearch(
            self.ledger,
            proposer,
            self.out,
            concurrency,
            limit=limit,
            rungs=self.rule.rungs,
            mirror=self.mirror,
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
                storage_path=str(scratch),
                raise_on_failed_trial=False,
                verbose=0,
            )
        except StopNow:
            pass  # the ledger knows what was running
        except RuntimeError as error:
            # a worker that its node's memory monitor killed ends Ray Tune, which knows only actors that died alone
            if not isinstance(error.__cause__, RayError):
                raise
            housekeeping.kill_running()
            line = next(iter(str(error.__cause__).strip().splitlines()), type(error.__cause__).__name__)
            reason = f"the worker was lost: {line[:200]}"
            self.ledger.give_up_or_requeue(reason, _WORKER_LOSSES, search.got_on())
            return reason
        finally:
            search.end()
        if search.failure is not None:
            raise search.failure
        return None
