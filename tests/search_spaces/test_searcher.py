"""Ray Tune's view of the ledger, without Ray's cluster: when clocks start, and what a lost worker leaves queued."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState
from small_studies import sweep_values

from search_spaces.driver import Driver
from search_spaces.ledger import Ledger
from search_spaces.load import parse_study
from search_spaces.ray_parts import StudyCallback
from search_spaces.samplers import Proposer
from search_spaces.searcher import LedgerSearch

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
        check=driver.check,
        run=driver.run,
        on_finished=lambda number, state, words, final: None,
        on_disk_full=lambda: None,
        limit=1,
    )
    yield made
    made.close()


class Clock:
    """``time`` as the searcher knows it."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_trial_is_late_by_the_time_its_worker_has_had_it(
    driver: Driver, search: LedgerSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("search_spaces.searcher.time", clock)
    monkeypatch.setattr("search_spaces.ray_parts.time", clock)
    housekeeping = StudyCallback(driver, search, progress=None, changed=None)  # type: ignore[arg-type]
    state = SimpleNamespace(ray_actor=None)
    trial: Any = SimpleNamespace(trial_id="a", status="PENDING", max_failures=2, temporary_state=state)

    def pass_seconds(seconds: float, status: str) -> None:
        clock.now += seconds
        trial.status = status
        housekeeping.on_step_begin(0, [trial])

    assert search.suggest("a") is not None
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


def test_what_a_lost_worker_leaves_runs_again_though_the_grid_has_ended(driver: Driver, search: LedgerSearch) -> None:
    search.proposer.exhausted = "every combination of the grid has been proposed"
    number = driver.ledger.start({}, {}, {})
    said: list[str] = []
    driver._go_on("the worker was lost", search.proposer, SimpleNamespace(done=0, say=said.append))  # type: ignore[arg-type]
    assert [trial.state for trial in driver.ledger.trials()][number:] == [TrialState.FAIL, TrialState.WAITING]
    assert search.proposer.exhausted is None
    assert said == ["the worker was lost"]
