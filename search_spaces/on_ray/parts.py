"""Callbacks of Ray Tune: the scheduler, the stopper and the driver's housekeeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from routing.config.script import AnyRun
from search_spaces.ledger.ledger import LOST, TIMEOUT
from search_spaces.on_ray.nodes import NODE, lost_at_start
from search_spaces.on_ray.searcher import LedgerSearch
from search_spaces.on_ray.waiting import Waiting
from search_spaces.search.rules import Rule

WORKER_LOSSES = 2
"""How often a trial is tried again when its worker or node dies, without a new epoch in between."""
_TABLES_SECONDS = 2.0
_TABLES_SHARE = 0.02


class StudyScheduler(FIFOScheduler):
    """Applies a ``Rule`` to the rows that trials report; ends a trial at a rung or at its last result."""

    def __init__(self, rule: Rule, search: LedgerSearch) -> None:
        super().__init__()
        self.rule, self.search = rule, search

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        live = self.search.live.get(trial.trial_id)
        if live is None or result.get("done"):
            return TrialScheduler.CONTINUE
        # a row under way when its worker was killed on purpose gives it no further attempt
        killed = trial.trial_id in self.search.errors or trial.trial_id in self.search.asked_stops
        if live.is_further(result) and not killed:
            trial.max_failures = trial.num_failures + WORKER_LOSSES
        verdict = self.rule.judge(live.number, result, live.config.num_epochs, live.expected_flops)
        if verdict is None or verdict.goes_on or live.to_the_end:
            return TrialScheduler.CONTINUE
        self.search.stopped[trial.trial_id] = verdict
        return TrialScheduler.STOP

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        live = self.search.live.get(trial.trial_id)
        if live is not None:
            self.search.nodes.place(trial, live.config)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        error, live = trial.get_error(), self.search.live.get(trial.trial_id)
        if error is None:
            return
        cause = getattr(error, "cause", None) or error
        line = next((line for line in reversed(str(cause).strip().splitlines()) if line.strip()), "")
        self.search.errors.setdefault(trial.trial_id, f"{LOST}: {type(cause).__name__}: {line}"[:500])
        unfit = lost_at_start(error)
        if unfit is not None and live is not None:
            self.search.leave_out(unfit[0], NODE, live, unfit[1])
            trial.max_failures += 1  # the node's failure, not the trial's
            self.search.nodes.place(trial, live.config)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Leave the choice to the controller's queue; a scan of all trials is slow when there are thousands."""
        return None


class StopNow(BaseException):
    """Leaves Ray Tune's loop; a ``BaseException``, because Ray Tune handles every ``Exception`` itself."""


class _Stopper(Stopper):
    """Ends a trial at its own last result, and the study when the driver asks for it."""

    def __init__(self, stop_all: Callable[[], bool]) -> None:
        self._stop_all = stop_all

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(result.get("done"))

    def stop_all(self) -> bool:
        return self._stop_all()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray saves its stoppers; nothing reads them back, the ledger is the truth


class StudyCallback(Callback):
    """Housekeeping between two events: progress, tables, timeouts, a quick end on request.

    Args:
        search: knows the trials that Ray has.
        changed: set when the tables are out of date.
        trial_timeout: seconds a worker may have a trial; None for no limit.
        should_stop, start_clock: whether the study ends now, and what to call when its first trial starts.
        publish: write the tables.
        started, reported, refresh: called when a worker takes a trial, when it reports an epoch, and to draw both.
        say: called with a line when no worker takes any.
        requested: called after each step, to do what people ask for; returns whether the tables have changed by it.
    """

    def __init__(
        self,
        search: LedgerSearch,
        changed: threading.Event,
        trial_timeout: float | None,
        *,
        should_stop: Callable[[], bool],
        start_clock: Callable[[], None],
        publish: Callable[[], None],
        started: Callable[[int, AnyRun], None],
        reported: Callable[[int, dict[str, Any]], None],
        refresh: Callable[[], None],
        say: Callable[[str], None],
        requested: Callable[[LedgerSearch, list[Trial]], bool],
    ) -> None:
        self.search, self.changed, self.trial_timeout = search, changed, trial_timeout
        self.should_stop, self.start_clock, self.publish = should_stop, start_clock, publish
        self.started, self.reported, self.refresh, self.say = started, reported, refresh, say
        self.requested = requested
        self._waiting = Waiting()
        self.stopper = _Stopper(self.stop_all)
        self._trials: list[Trial] = []
        self._next_tables = 0.0

    def stop_all(self) -> bool:
        """End the study when the driver asks for it: kill the processes of running trials and leave Ray Tune at once.

        Waiting for the end of an epoch could take minutes; Ray Tune's own clean-up takes up to 15 s.
        """
        if not self.should_stop() and self.search.failure is None:
            return False
        self.search.close()
        self.kill_running()
        raise StopNow

    def kill_running(self) -> None:
        """Kill the processes of the trials that are running."""
        for trial in self._trials:
            if trial.trial_id in self.search.live:
                _kill(trial)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.start_clock()
        self.changed.set()
        self.search.on_trial_start(trial.trial_id)
        live = self.search.live.get(trial.trial_id)
        if live is not None:
            self.started(live.number, live.config)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        live = self.search.live.get(trial.trial_id)
        if live is not None:
            self.reported(live.number, result)

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._trials = trials
        limit = self.trial_timeout
        if limit is None:
            return
        late = self.search.late(limit) - self.search.errors.keys()
        for trial in trials if late else ():
            if trial.trial_id in late and trial.status == Trial.RUNNING:
                self.search.errors[trial.trial_id] = f"{TIMEOUT}it took longer than {limit:g} s"
                trial.max_failures = 0
                _kill(trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.refresh()
        if self.requested(self.search, trials):
            self.changed.set()
        line = self._waiting.look(self.search.live.values())
        if line is not None:
            self.say(line)
        if self.changed.is_set() and time.monotonic() >= self._next_tables:
            self.changed.clear()
            started = time.monotonic()
            self.publish()
            spent = time.monotonic() - started
            self._next_tables = time.monotonic() + max(_TABLES_SECONDS, spent / _TABLES_SHARE)


def _kill(trial: Trial) -> None:
    actor = trial.temporary_state.ray_actor
    if actor is not None:
        ray.kill(actor, no_restart=True)
