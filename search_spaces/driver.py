"""``Driver``: one call of ``sweep``; owns the results folder while it runs."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from optuna.trial import TrialState

from routing import __version__
from routing.commands.console import Phase, duration
from routing.config.run import RunConfig
from routing.config.script import AnyRun
from routing.errors import InputError, RoutingError
from routing.files.mirror import Mirror
from routing.files.results_folder import RAY_LOG_FILE
from search_spaces.ledger.folder import drop_leftovers, drop_models, locked, study_seed, write_environment
from search_spaces.ledger.ledger import RETRY_OF, done
from search_spaces.ledger.opening import Opening
from search_spaces.ledger.requests import FINISH, Request, requests, take
from search_spaces.ledger.resume import replayed, settle_running, total_trials
from search_spaces.ledger.tables import Collector
from search_spaces.on_ray.private import lost_features
from search_spaces.on_ray.session import cluster_address, cluster_concurrency, machine_gpus, session, start_together
from search_spaces.on_ray.watch import watched
from search_spaces.plan import Blueprint, blueprint, trained_epochs
from search_spaces.progress import SweepProgress
from search_spaces.search.proposer import Proposer
from search_spaces.signals import SweepInterrupted, clean_stop, go_on, last_words
from search_spaces.stopping import Plateau, Stopping
from search_spaces.study.schema import Study, SweepStudy, constraints_of
from search_spaces.words import FoundPoint

_SEGMENT = 2000
"""Trials of one Ray Tune run: Ray Tune keeps every trial in memory, and a long study would fill the driver's."""


class Driver:
    """One call of ``search_spaces.sweep``, which explains the arguments."""

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
        retry_failed: bool = False,
        keep_going: bool = False,
        allow_mixed_versions: bool = False,
    ) -> None:
        self.study, self.out, self.mirror, self.run = study, out, mirror, run
        self.address, self.concurrency = address, concurrency
        self.plan: Blueprint = blueprint(study, trials)
        self.version = None if allow_mixed_versions else __version__
        self.opening = Opening(
            study, self.plan, out, mirror, resume, warm_start, force, storage, blueprint, retry_failed
        )
        self.stopping = Stopping(budget, keep_going)
        self.collector = Collector(
            out,
            lambda labels: self.plan.configure(self.plan.space.restore(labels)),
            study.objectives,
            constraints_of(study),
        )

    def drive(self) -> Path:
        """Run the missing trials; the tables are written however it ends."""
        self.opening.check()
        said_of_data = check_data(self.plan, self.address)
        with locked(self.out), clean_stop(self.stopping.interrupt) as self.catch_signals:
            self.ledger, is_new, notes = self.opening.open()
            notes, withdrawn = [*said_of_data, *notes], False
            for request in self._finishes():
                self.stopping.finish(request.who)
            try:
                if self._missing():
                    self._run_missing(notes)
                else:
                    for note in notes:
                        print(note, flush=True)
            except (
                InputError
            ):  # no cluster answers, or none has room: nothing has run, so remove the new folder's files
                if is_new:
                    self.opening.withdraw(self.ledger)
                    withdrawn = True
                raise
            finally:
                if not withdrawn:
                    settle_running(self.ledger, self.out, self.study.objectives, self.plan)
                    drop_leftovers(self.out)
                    self.publish()
            if not self.stopping.should_stop():
                for request in self._finishes():
                    take(request)
                drop_models_not_kept(self.out, self.study.keep_models, self.collector, self.mirror)
            print(f"{self.out}: {self.collector.summary()}", file=sys.stderr)
        if self.stopping.signal is not None:
            raise SweepInterrupted(self.stopping.signal, self.out)
        if self.stopping.failure is not None:
            again = ["--retry-failed"] if self.stopping.fails_alike else []
            more = " (or with --keep-going all the same)" if again else ""
            mend = "" if self.stopping.ray_lost else "mend it, then "
            raise RoutingError(f"{self.stopping.failure}; {mend}{go_on(*again)}{more}")
        return self.out

    def publish(self) -> None:
        """Write the tables, and copy them and the ledger to the mirror.

        Raises:
            RoutingError: the mirror does not answer; the tables are written.
        """
        self.collector.write(self.ledger.trials())
        if self.mirror is not None:
            self.mirror.push(self.out, deep=False)

    def _run_missing(self, notes: list[str]) -> None:
        resources = self.study.resources
        with Phase("starting Ray") as starting, session(self.address, self.concurrency or 1, resources) as scratch:
            self.catch_signals()  # Ray has put its own handlers in place
            concurrency = self.concurrency or cluster_concurrency(resources)
            start_together(concurrency)
            write_environment(self.out, self.study, concurrency, study_seed(self.study))
            with watched(self.out / RAY_LOG_FILE, self.stopping.ray_is_lost, last_words(self.out)):
                self._run_segments(scratch, concurrency, [*lost_features(), *notes, *self._unused_gpus()], starting)

    def _run_segments(self, scratch: Path, concurrency: int, notes: list[str], starting: Phase) -> None:
        """Run segments until no trial is missing, or the sweep must stop; after an exhausted sampler what is queued."""
        # both import Ray Tune, while Ray's processes start
        from search_spaces.on_ray.nodes import Nodes
        from search_spaces.on_ray.requested import Requested
        from search_spaces.on_ray.segment import Segments

        stopping, past = self.stopping, (self.ledger, self.study, self.plan, self.out)
        proposer, rule, ended = replayed(*past)
        plateau = plateau_of(self.study, ended)
        total = total_trials(self.ledger, self.plan)
        progress = SweepProgress(
            self.study.name, self.study.objectives, total, self.out, self._done(), chain(*ended), concurrency,
            partial(trained_epochs, self.study), lambda: stopping.deadline, self.plan.keys, plateau,
        )  # fmt: skip
        segments = Segments(
            self.study, self.plan, self.ledger, self.out, self.mirror, self.run, concurrency, stopping, progress,
            self.publish, Nodes(self.study.resources),
            Requested(self.out, self.ledger, stopping, progress.say, progress.one_more), self.version,
        )  # fmt: skip
        segments.end_on_plateau(proposer)
        starting.stop()
        for note in notes:
            progress.say(note)
        with progress:
            count = 0
            while not stopping.should_stop() and (left := self._left(proposer)):
                lost = segments.tune(scratch / f"tune{count}", min(left, _SEGMENT), proposer, rule)
                count += 1
                if lost is not None:
                    progress.say(lost)
                    proposer, rule, _ = replayed(*past)
                    segments.end_on_plateau(proposer)
                    progress.begin_again(self._done())
        if stopping.disk_full:
            raise OSError(errno.ENOSPC, "a trial found no room for its files")
        if stopping.finished_by is not None:
            progress.say(f"ended after {progress.done} trials: {stopping.finished_by} asked for it")
        elif proposer.exhausted:
            progress.say(f"stopped after {progress.done} trials: {proposer.exhausted}")
        elif stopping.signal is None and stopping.failure is None and stopping.should_stop():
            progress.say(f"time budget of {duration(stopping.budget or 0)} is over after {progress.done} trials")

    def _unused_gpus(self) -> list[str]:
        """Return a warning when this machine has GPUs and no trial gets a share of one."""
        count = 0 if self.study.resources.gpu or cluster_address(self.address) is not None else machine_gpus()
        return [f"no trial uses the {count} GPU(s) of this machine: resources.gpu is 0"] if count else []

    def _done(self) -> int:
        return len(done(self.ledger.trials()))

    def _missing(self) -> int:
        """Return how many trials are to run; after a person has asked for the end, those that were interrupted."""
        if self.stopping.finished_by is None:
            return max(total_trials(self.ledger, self.plan) - self._done(), 0)
        return sum(RETRY_OF in trial.user_attrs for trial in self.ledger.trials((TrialState.WAITING,)))

    def _left(self, proposer: Proposer) -> int:
        """Return how many of the missing trials can run: once the sampler proposes nothing, those that are queued."""
        missing = self._missing()
        if not missing or proposer.exhausted is None:
            return missing
        return min(missing, len(self.ledger.trials((TrialState.WAITING,))))

    def _finishes(self) -> list[Request]:
        return [request for request in requests(self.out) if request.what == FINISH]


def plateau_of(study: Study, ended: Sequence[Sequence[FoundPoint]]) -> Plateau | None:
    """Return what ends a search that gains nothing, given the points of the trials so far; None where nothing does."""
    if not isinstance(study, SweepStudy) or study.stop is None:
        return None
    return Plateau(study.stop, study.objectives, ([point for _, point in points] for points in ended))


def check_data(plan: Blueprint, address: str | None) -> list[str]:
    """Fail now, not in every trial, when data of the study are missing; return lines that describe the data.

    On a cluster only the description is checked: its nodes may hold the images at this path when the driver does not.
    """
    configs = [run for run in _runs_of_every_data_set(plan) if isinstance(run, RunConfig)]
    datasets = {config.dataset.model_dump_json(): config.dataset for config in configs}
    for dataset in datasets.values():
        if cluster_address(address) is None:
            dataset.check()
        else:
            dataset.check_for_nodes()
    for config in configs:
        config.model.check(config.dataset.info(), config.plugins)
    lines = dict.fromkeys(dataset.describe() for dataset in datasets.values())
    return [line for line in lines if line]


def _runs_of_every_data_set(plan: Blueprint) -> Iterator[AnyRun]:
    """Yield the runs of an ablation, or those at the corners of a search."""
    if plan.samples:
        yield from map(plan.configure, plan.space.corners())
    else:
        yield from map(plan.configure, map(plan.space.restore, plan.enqueue))


def drop_models_not_kept(out: Path, keep: str, collector: Collector, mirror: Mirror | None) -> None:
    """Delete the trained models that a finished study does not keep, here and behind the mirror."""
    front = collector.front_trials() if keep == "front" else set()
    if front or keep == "none":
        for path in drop_models(out, keep, front):
            if mirror is not None:
                mirror.drop(path.relative_to(out).as_posix())
