"""A segment: some trials of a study on Ray Tune, from the first that starts to the last that ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray import tune
from ray.exceptions import RayError

from routing.errors import RoutingError
from routing.files.mirror import Mirror
from routing.files.results_folder import CHECKPOINT_FILE, TRIALS_FOLDER, trial_folder
from routing.trainable import RunTrainable
from search_spaces.ledger.ledger import LOST, Ledger
from search_spaces.ledger.resume import points_to_choose
from search_spaces.on_ray.nodes import Nodes
from search_spaces.on_ray.parts import WORKER_LOSSES, StopNow, StudyCallback, StudyScheduler
from search_spaces.on_ray.requested import Requested
from search_spaces.on_ray.searcher import LedgerSearch
from search_spaces.plan import Blueprint, run_of
from search_spaces.progress import SweepProgress
from search_spaces.search.proposer import Proposer
from search_spaces.search.rules import Rule
from search_spaces.stopping import Stopping
from search_spaces.study.schema import Study, constraints_of


@dataclass(frozen=True)
class Segments:
    """Runs trials of one study on a Ray that has been started.

    ``run`` is the ``module:function`` that trains a run; ``publish`` writes the tables; ``version`` is that of the
    package which nodes must have, None for any.
    """

    study: Study
    plan: Blueprint
    ledger: Ledger
    out: Path
    mirror: Mirror | None
    run: str
    concurrency: int
    stopping: Stopping
    progress: SweepProgress
    publish: Callable[[], None]
    nodes: Nodes
    requested: Requested
    version: str | None

    def tune(self, scratch: Path, limit: int, proposer: Proposer, rule: Rule) -> str | None:
        """Run ``limit`` trials to their end; return the reason where Ray Tune ends early.

        Running trials are then queued again, as by a resumed sweep; one that was lost too often fails.
        """
        changed = threading.Event()
        search = self._search(changed, limit, proposer, rule)
        housekeeping = self._housekeeping(changed, search)
        try:
            self._run(scratch, search, housekeeping, rule)
        except StopNow:
            pass  # running trials are in the ledger
        except RuntimeError as error:
            # a worker killed by its node's memory monitor ends Ray Tune, which handles no other death than an actor's
            if not isinstance(error.__cause__, RayError):
                raise
            housekeeping.kill_running()
            line = next(iter(str(error.__cause__).strip().splitlines()), type(error.__cause__).__name__)
            reason = f"{LOST}: {line[:200]}"
            self.ledger.give_up_or_requeue(reason, WORKER_LOSSES, search.got_on())
            return reason
        finally:
            search.end()
        if search.failure is not None:
            raise search.failure
        return None

    def _search(self, changed: threading.Event, limit: int, proposer: Proposer, rule: Rule) -> LedgerSearch:
        return LedgerSearch(
            self.ledger,
            proposer,
            self.out,
            self.concurrency,
            limit=limit,
            rungs=rule.rungs,
            mirror=self.mirror,
            check=partial(run_of, self.study, self.plan),
            run=self.run,
            on_finished=partial(self._finished, changed, proposer),
            on_moved=self._moved,
            stopping=self.stopping,
            nodes=self.nodes,
            version=self.version,
        )

    def _housekeeping(self, changed: threading.Event, search: LedgerSearch) -> StudyCallback:
        return StudyCallback(
            search,
            changed,
            self.study.trial_timeout,
            should_stop=self.stopping.should_stop,
            start_clock=self.stopping.start_clock,
            publish=self._publish,
            started=self.progress.started,
            reported=self.progress.reported,
            refresh=self.progress.refresh,
            say=self.progress.say,
            requested=self.requested.look,
        )

    def _run(self, scratch: Path, search: LedgerSearch, housekeeping: StudyCallback, rule: Rule) -> None:
        resources = self.study.resources
        tune.run(
            RunTrainable,
            name="study",
            search_alg=search,
            scheduler=StudyScheduler(rule, search),
            stop=housekeeping.stopper,
            callbacks=[housekeeping],
            num_samples=-1,
            max_concurrent_trials=self.concurrency,
            resources_per_trial={"cpu": resources.cpu, "gpu": resources.gpu, **resources.custom},
            reuse_actors=True,
            max_failures=WORKER_LOSSES,
            storage_path=str(scratch),
            raise_on_failed_trial=False,
            verbose=0,
        )

    def _moved(self, number: int, line: str) -> None:
        self.progress.moved(number)
        if line:
            self.progress.say(line)

    def _finished(
        self,
        changed: threading.Event,
        proposer: Proposer,
        number: int,
        state: TrialState,
        words: str,
        final: dict[str, Any] | None,
    ) -> None:
        try:
            self._collect(number, state)
        except RoutingError as error:  # --resume downloads it, or runs the trial again
            self.progress.say(f"trial {number}: {error}")
        self.progress.finished(number, state.name, words, self._points(number, final))
        self.end_on_plateau(proposer)
        changed.set()

    def _points(self, number: int, final: dict[str, Any] | None) -> list[list[float]]:
        trial, limits = self.ledger.trial(number), constraints_of(self.study)
        return points_to_choose(self.plan, trial, final or {}, self.study.objectives, limits)

    def end_on_plateau(self, proposer: Proposer) -> None:
        """Propose nothing more where nothing is gained; what runs is trained to its end."""
        plateau = self.progress.plateau
        if plateau is not None and not plateau.left and proposer.exhausted is None:
            proposer.exhausted = plateau.words()

    def _collect(self, number: int, state: TrialState) -> None:
        """Download the files of a trial from the mirror, without its checkpoint, which only a running trial needs."""
        if self.mirror is None:
            return
        folder, name = trial_folder(self.out, number), f"{TRIALS_FOLDER}/{number}"
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)  # of an earlier attempt, downloaded when it was continued
        if state != TrialState.COMPLETE:
            self.mirror.drop(f"{name}/{CHECKPOINT_FILE}")
        self.mirror.pull(folder, name, replace=True)

    def _publish(self) -> None:
        try:
            self.publish()
        except RoutingError as error:  # the next upload, or the last one, includes it
            self.progress.say(str(error))
