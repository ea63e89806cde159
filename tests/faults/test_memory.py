"""Workers that the node kills for want of memory: Ray Tune ends over it, the study goes on."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray.exceptions import OutOfMemoryError
from small_studies import sweep_values

from search_spaces import sweep
from search_spaces.ledger.ledger import LOSSES, RETRY_OF, Ledger, done
from search_spaces.on_ray.searcher import LedgerSearch
from search_spaces.plan import blueprint
from search_spaces.study.load import parse_study

STUDY = parse_study(sweep_values(trials=2))


def test_a_trial_is_tried_again_twice(tmp_path: Path) -> None:
    plan = blueprint(STUDY)
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives)
    params = {"model.router.threshold_init": 0.5, "model.router.temperature": 1.0}
    ledger.start(params, plan.space.distributions(), {})
    for losses in (1, 2):
        ledger.give_up_or_requeue("the worker was lost", 2)
        [waiting] = ledger.trials((TrialState.WAITING,))
        assert (waiting.user_attrs[LOSSES], waiting.user_attrs[RETRY_OF]) == (losses, losses - 1)
        assert done(ledger.trials()) == []
        ledger.start(params, plan.space.distributions(), waiting.user_attrs, waiting)
    ledger.give_up_or_requeue("the worker was lost", 2)
    [last] = done(ledger.trials())
    assert (last.number, last.state, last.user_attrs["reason"]) == (2, TrialState.FAIL, "the worker was lost")
    assert ledger.trials((TrialState.WAITING,)) == []


def test_a_loss_counts_only_for_a_trial_that_has_not_got_on(tmp_path: Path) -> None:
    """Whose memory ran out is not known; what had finished an epoch was lost with it."""
    plan = blueprint(STUDY)
    ledger = Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives)
    params = {"model.router.threshold_init": 0.5, "model.router.temperature": 1.0}
    stuck, bystander = (ledger.start(params, plan.space.distributions(), {}) for _ in range(2))
    ledger.give_up_or_requeue("the worker was lost", 2, {bystander})
    lost = {trial.user_attrs[RETRY_OF]: trial.user_attrs[LOSSES] for trial in ledger.trials((TrialState.WAITING,))}
    assert lost == {stuck: 1, bystander: 0}


def test_ray_tune_ends_over_it_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What Ray Tune 2.60 does when a step's actor is killed for want of memory: a RuntimeError out of ``tune.run``."""
    calls = []

    def run_and_lose(*_: Any, search_alg: LedgerSearch, **__: Any) -> None:
        call: list[Any] = []
        calls.append(call)
        while len(call) < 2:
            call += filter(None, [search_alg.suggest(f"trial {len(calls)} {len(call)}")])
        if len(calls) == 1:
            cause = OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.\nMore.")
            raise RuntimeError(f"Caught unexpected exception: {cause}") from cause
        for key in list(search_alg.live):
            final = json.dumps({"metrics": {"val_accuracy": 0.5, "flops": 1e6}, "points": []})
            search_alg.on_trial_complete(key, {"done": True, "final": final})

    monkeypatch.setattr("search_spaces.driver.session", lambda *_: nullcontext(tmp_path / "scratch"))
    monkeypatch.setattr("ray.tune.run", run_and_lose)
    out = sweep(STUDY, tmp_path / "out", concurrency=2)
    first, second = ([json.loads(trial["config"]) for trial in call] for call in calls)
    assert first == second
    trials = Ledger(str(out / "ledger.journal"), "small", STUDY.objectives).trials()
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    reason = "the worker was lost: 1 worker(s) were killed due to the node running low on memory."
    assert [trial.user_attrs["reason"] for trial in trials[:2]] == [reason] * 2
    assert len(done(trials)) == 2
    assert reason in capsys.readouterr().err
