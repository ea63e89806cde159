"""Ray Tune's view of the ledger, without Ray's cluster: when clocks start, and what a lost worker leaves queued."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from small_studies import ablation_values, sweep_values

from search_spaces.driver import Driver
from search_spaces.ledger.ledger import PROPOSAL, Ledger
from search_spaces.ledger.resume import enqueue_missing, replayed
from search_spaces.on_ray.asking import Asker, enough_ahead
from search_spaces.on_ray.nodes import Nodes
from search_spaces.on_ray.parts import WORKER_LOSSES, StopNow, StudyCallback, StudyScheduler
from search_spaces.on_ray.searcher import LedgerSearch
from search_spaces.plan import blueprint, run_of
from search_spaces.search.proposer import Proposer
from search_spaces.search.rules import rule_of
from search_spaces.stopping import Stopping
from search_spaces.study.load import parse_study
from search_spaces.study.schema import ResourcesSection

STUDY = parse_study(sweep_values(trial_timeout="10s"))


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    made = Driver(
        STUDY, tmp_path, mirror=None, trials=None, budget=None, concurrency=1, address=None, resume=False,
        warm_start=[], force=False, storage=None, run="fake_runs:trivial",
    )  # fmt: skip
    made.ledger = Ledger(str(tmp_path / "ledger.journal"), STUDY.name, STUDY.objectives)
    return made


@pytest.fixture
def search(driver: Driver) -> Iterator[LedgerSearch]:
    made = LedgerSearch(
        driver.ledger,
        Proposer(driver.plan.space, STUDY.objectives, driver.plan.sampler),
        driver.out,
        concurrency=1,
        check=partial(run_of, STUDY, driver.plan),
        run=driver.run,
        on_finished=lambda number, state, words, final: None,
        on_moved=lambda number, line: None,
        stopping=Stopping(None),
        nodes=Nodes(ResourcesSection()),
        limit=1,
        rungs=lambda epochs: [1],
    )
    yield made
    made.close()


def callback(driver: Driver, search: LedgerSearch) -> StudyCallback:
    stopping = driver.stopping
    return StudyCallback(
        search, Event(), STUDY.trial_timeout, should_stop=stopping.should_stop, start_clock=stopping.start_clock,
        publish=driver.publish, started=lambda number, config: None, reported=lambda number, row: None,
        refresh=lambda: None, say=lambda line: None, requested=lambda search, trials: False,
    )  # fmt: skip


class Clock:
    """``time`` as the searcher knows it."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_trial_is_late_by_the_time_its_worker_has_had_it(
    driver: Driver, search: LedgerSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("search_spaces.on_ray.searcher.time", clock)
    monkeypatch.setattr("search_spaces.on_ray.parts.time", clock)
    housekeeping = callback(driver, search)
    state = SimpleNamespace(ray_actor=None)
    trial: Any = SimpleNamespace(trial_id="a", status="PENDING", max_failures=2, temporary_state=state)

    def pass_seconds(seconds: float, status: str) -> None:
        clock.now += seconds
        trial.status = status
        housekeeping.on_step_begin(0, [trial])

    while not search.suggest("a"):  # asked on a thread of its own, which may first have to import torch
        time.sleep(0.01)
    pass_seconds(60, "PENDING")  # no room, or a process that imports
    housekeeping.on_trial_start(0, [trial], trial)
    pass_seconds(9, "RUNNING")
    search.errors["a"] = "the worker was lost"  # as the scheduler notes it
    pass_seconds(60, "PENDING")
    assert trial.max_failures == 2
    housekeeping.on_trial_start(0, [trial], trial)
    pass_seconds(9, "RUNNING")
    assert trial.max_failures == 2
    pass_seconds(2, "RUNNING")
    assert trial.max_failures == 0
    search.on_trial_complete("a", error=True)
    [row] = driver.ledger.trials()
    assert row.user_attrs["reason"] == "timeout: it took longer than 10 s"
    assert row.user_attrs["seconds"] == 80  # from the first start on: 9 + 60 + 11


def test_what_was_asked_ahead_of_a_lost_worker_is_asked_again(driver: Driver, search: LedgerSearch) -> None:
    """Ray Tune has ended, and with it what the asker had ready; who goes on starts from the ledger alone."""
    before, _, _ = replayed(driver.ledger, STUDY, driver.plan, driver.out)
    started, ahead = (before.propose(lambda values: None) for _ in range(2))
    assert started is not None
    assert ahead is not None
    labels = driver.plan.space.labels(started.values)
    attrs = {PROPOSAL: started.index}
    number = driver.ledger.start(labels, driver.plan.space.distributions(), attrs)
    driver.ledger.give_up_or_requeue("the worker was lost", 2)
    assert [trial.state for trial in driver.ledger.trials()][number:] == [TrialState.FAIL, TrialState.WAITING]
    after, _, _ = replayed(driver.ledger, STUDY, driver.plan, driver.out)
    again = after.propose(lambda values: None)
    assert after.exhausted is None
    assert again is not None
    assert (again.index, again.values) == (ahead.index, ahead.values)


def test_what_is_queued_runs_after_the_sampler_has_nothing_left(driver: Driver) -> None:
    """Settings of people, lost trials and retried ones: the first that waits, and one that comes while others run."""
    key = "model.router.threshold_init"
    proposer = Proposer(driver.plan.space, STUDY.objectives, driver.plan.sampler)
    proposer.exhausted = "nothing is gained"
    driver.ledger.enqueue({key: 1.5})
    asker = Asker(driver.ledger, proposer, partial(run_of, STUDY, driver.plan), limit=9, ahead=2)

    def taken() -> Any:
        while (ready := asker.take(wait=True)) is None and not asker.is_over():
            pass
        return None if ready is None else ready.proposal.values[key]

    assert [taken(), taken()] == [1.5, None]
    driver.ledger.enqueue({key: -1.5})
    asker.again()
    assert [taken(), taken()] == [-1.5, None]
    assert driver._left(proposer) == 2  # both still wait: nothing has started them here
    asker.end()
    assert not asker._thread.is_alive()


def test_a_row_under_way_does_not_bring_a_stopped_trial_back(search: LedgerSearch) -> None:
    while not search.suggest("a"):
        pass
    scheduler = StudyScheduler(rule_of(STUDY.scheduler, STUDY.objectives), search)
    trial: Any = SimpleNamespace(trial_id="a", num_failures=0, max_failures=0)
    row = {"epoch": 1, "val_accuracy": 0.5, "flops": 1e6}
    search.asked_stops["a"] = {"reason": "stopped by a person"}
    scheduler.on_trial_result(None, trial, row)
    assert trial.max_failures == 0
    search.asked_stops.clear()
    scheduler.on_trial_result(None, trial, row)
    assert trial.max_failures == WORKER_LOSSES


def test_the_end_of_a_trial_that_cannot_be_written_stops_the_sweep(
    driver: Driver, search: LedgerSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Tune takes every exception for the trial's own and would run it again."""

    def lost(*_: Any, **__: Any) -> None:
        raise StorageInternalError("the server closed the connection")

    while not search.suggest("a"):
        pass
    monkeypatch.setattr(driver.ledger, "finish", lost)
    final = json.dumps({"metrics": {"val_accuracy": 0.5, "flops": 1e6}, "points": []})
    search.on_trial_complete("a", {"done": True, "final": final})
    assert isinstance(search.failure, StorageInternalError)
    with pytest.raises(StopNow):
        callback(driver, search).stop_all()
    assert [trial.state for trial in driver.ledger.trials()] == [TrialState.RUNNING]  # for resume to settle


def test_the_arms_of_an_ablation_may_be_stopped_early(tmp_path: Path) -> None:
    """All of its settings are queued; in a sweep a queued setting is a baseline, which is never stopped."""
    study = parse_study(ablation_values(scheduler={"name": "asha"}))
    plan = blueprint(study)
    ledger = Ledger(str(tmp_path / "ledger.journal"), study.name, study.objectives)
    enqueue_missing(ledger, plan.enqueue)
    made = LedgerSearch(
        ledger,
        Proposer(plan.space, study.objectives, plan.sampler, plan.samples),
        tmp_path,
        concurrency=1,
        check=lambda values: (plan.configure(values), 1e6),
        run="fake_runs:trivial",
        on_finished=lambda number, state, words, final: None,
        on_moved=lambda number, line: None,
        stopping=Stopping(None),
        nodes=Nodes(ResourcesSection()),
        limit=1,
        rungs=lambda epochs: [1],
    )
    while not made.suggest("a"):
        pass
    made.close()
    assert not made.live["a"].to_the_end


def test_nothing_is_proposed_any_more_when_the_asker_has_ended() -> None:
    """A sampler that computes while the process ends takes it down with it."""

    class Endless:
        exhausted = None

        def propose(self, accept: Any) -> None:
            while True:
                assert accept({}) == "not this one"
                time.sleep(0.01)

    ledger: Any = SimpleNamespace(trials=lambda states: [])
    proposer: Any = Endless()
    asker = Asker(ledger, proposer, lambda values: "not this one", limit=1, ahead=1)
    assert asker._thread.is_alive()
    asker.end()
    assert not asker._thread.is_alive()
    assert asker.take(wait=False) is None


@pytest.mark.parametrize(
    ("taken", "seconds", "ahead"),
    [
        ([], 9.0, 1),
        ([0.0, 0.0, 0.0, 0.0], 9.0, 1),  # the first of all workers come at once
        ([0.0, 0.0, 0.0, 0.0, 8.0], 1.0, 1),  # one in two seconds is taken
        ([0.0, 2.0, 4.0, 6.0, 8.0], 5.0, 3),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 5.0, 4),
    ],
)
def test_proposals_are_ready_at_the_pace_they_are_taken(taken: list[float], seconds: float, ahead: int) -> None:
    assert enough_ahead(taken, seconds, workers=4) == ahead
