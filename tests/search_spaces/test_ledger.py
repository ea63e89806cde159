"""The ledger on disk: requeueing, recovery, damage, foreign ledgers, warm start."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from small_studies import ablation_values, sweep_values

from routing.errors import InputError
from routing.record import METRICS_FILE
from search_spaces.ledger import REASON, RETRY_OF, Ledger, done, mend_journal, setting_of
from search_spaces.load import parse_study
from search_spaces.plan import Blueprint, blueprint
from search_spaces.results import trial_folder, write_study
from search_spaces.resume import enqueue_missing, next_proposal, settle, total_trials, warm

STUDY = parse_study(sweep_values())
PLAN: Blueprint = blueprint(STUDY)
PARAMS = {"model.router.threshold_init": 0.5, "model.router.temperature": 1.0}


def open_ledger(folder: Path, name: str = "small") -> Ledger:
    return Ledger(str(folder / "ledger.journal"), name, STUDY.objectives)


def begin(ledger: Ledger, threshold: float = 0.5, proposal: int = 0) -> int:
    params = {**PARAMS, "model.router.threshold_init": threshold}
    return ledger.start(params, PLAN.space.distributions(), {"proposal": proposal})


def write_metrics(folder: Path, text: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"metrics": {"val_accuracy": 0.8, "flops": 1e6}, "points": []}
    (folder / METRICS_FILE).write_text(json.dumps(content) if text is None else text)


def test_an_interrupted_trial_is_failed_and_queued_with_the_same_setting(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    number = begin(ledger)
    again = open_ledger(tmp_path)
    assert settle(again, tmp_path, STUDY.objectives, PLAN) == ["1 interrupted trials are queued again"]
    failed, waiting = again.trials()
    assert (failed.number, failed.state, failed.user_attrs[REASON]) == (number, TrialState.FAIL, "interrupted")
    assert waiting.state == TrialState.WAITING
    assert waiting.user_attrs[RETRY_OF] == number
    assert setting_of(waiting) == PARAMS
    assert done(again.trials()) == []
    assert again.start(PARAMS, PLAN.space.distributions(), waiting.user_attrs, waiting) == 1
    again.finish(1, TrialState.COMPLETE, [0.8, 1e6])
    assert [t.number for t in done(again.trials())] == [1]
    assert settle(open_ledger(tmp_path), tmp_path, STUDY.objectives, PLAN)[0].startswith("trial 1 runs again")


def test_a_trial_that_had_finished_when_the_driver_died_is_kept(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    write_metrics(trial_folder(tmp_path, begin(ledger)))
    assert settle(ledger, tmp_path, STUDY.objectives, PLAN) == ["0 interrupted trials are queued again, 1 had finished"]
    [trial] = ledger.trials()
    assert (trial.state, trial.values) == (TrialState.COMPLETE, [0.8, 1e6])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"metrics": 3}', "\x00\x01"])
def test_an_unreadable_result_runs_again_once(tmp_path: Path, text: str) -> None:
    ledger = open_ledger(tmp_path)
    number = begin(ledger)
    ledger.finish(number, TrialState.COMPLETE, [0.8, 1e6])
    write_metrics(trial_folder(tmp_path, number), text)
    [note] = settle(ledger, tmp_path, STUDY.objectives, PLAN)
    assert note.startswith("trial 0 runs again: ")
    assert METRICS_FILE in note
    assert done(ledger.trials()) == []
    assert settle(ledger, tmp_path, STUDY.objectives, PLAN) == []


def test_a_journal_cut_at_any_byte_opens_and_loses_at_most_its_last_entry(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    ledger = open_ledger(whole)
    for i in range(3):
        ledger.finish(begin(ledger, i / 10, i), TrialState.COMPLETE, [0.1 * i, 1e6])
    content = (whole / "ledger.journal").read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(0, len(content), 31):
        path = tmp_path / "ledger.journal"
        path.write_bytes(content[:cut])
        note = mend_journal(path)
        assert (note is None) == (cut == 0 or cut in ends)
        assert len(path.read_bytes()) == max([end for end in ends if end <= cut], default=0)
        opened = open_ledger(tmp_path)
        begin(opened)
        assert all(t.state != TrialState.COMPLETE or t.values for t in open_ledger(tmp_path).trials())


def test_a_journal_damaged_in_the_middle_is_named_with_its_line(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    begin(ledger)
    path = tmp_path / "ledger.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"garbage\n", *lines[1:]]))
    with pytest.raises(InputError, match=r"ledger.journal:2: not a readable ledger entry"):
        mend_journal(path)


def test_foreign_ledgers_are_refused(tmp_path: Path) -> None:
    open_ledger(tmp_path)
    with pytest.raises(InputError, match="is the ledger of another study, 'small', not of 'other'"):
        open_ledger(tmp_path, "other")
    with pytest.raises(InputError, match=r"other objectives \(maximize val_accuracy, minimize flops\)"):
        Ledger(str(tmp_path / "ledger.journal"), "small", STUDY.objectives[::-1])
    with pytest.raises(InputError, match=r"ledger nowhere://x cannot be opened"):
        Ledger("nowhere://x", "small", STUDY.objectives)


def test_changed_choices_cannot_go_on_in_the_same_ledger(tmp_path: Path) -> None:
    grids = blueprint(parse_study(sweep_values(space={"dataset.patch_grid_size": [4, 5]}))).space
    ledger = open_ledger(tmp_path)
    ledger.start({"dataset.patch_grid_size": 4}, grids.distributions(), {})
    ledger.check_distributions(grids.distributions())
    other = blueprint(parse_study(sweep_values(space={"dataset.patch_grid_size": [4, 8]}))).space
    with pytest.raises(InputError, match=r"the choices of dataset.patch_grid_size changed; .* --warm-start"):
        ledger.check_distributions(other.distributions())


def test_sqlite_is_accepted(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/study.db"
    ledger = Ledger(where, "small", STUDY.objectives)
    ledger.finish(begin(ledger), TrialState.COMPLETE, [0.5, 1e6])
    [trial] = Ledger(where, "small", STUDY.objectives).trials()
    assert trial.values == [0.5, 1e6]


def test_other_programs_read_the_ledger_with_metric_names(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.finish(begin(ledger), TrialState.COMPLETE, [0.5, 1e6])
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "ledger.journal"))
    )
    study = optuna.load_study(study_name=None, storage=storage)
    assert study.metric_names == ["val_accuracy", "flops"]
    assert study.trials_dataframe()["params_model.router.temperature"].tolist() == [1.0]


def test_settings_are_queued_once(tmp_path: Path) -> None:
    ablation = blueprint(parse_study(ablation_values()))
    ledger = open_ledger(tmp_path)
    enqueue_missing(ledger, ablation.enqueue)
    enqueue_missing(ledger, ablation.enqueue)
    assert len(ledger.trials()) == 10
    assert total_trials(ledger, ablation) == 10
    more = blueprint(parse_study(ablation_values(seeds=[0, 1, 2])))
    enqueue_missing(ledger, more.enqueue)
    assert len(ledger.trials()) == total_trials(ledger, more) == 15


def test_proposals_are_counted_on(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    assert next_proposal(ledger) == 0
    begin(ledger, proposal=0)
    begin(ledger, proposal=1)
    assert next_proposal(ledger) == 2


def test_warm_start_takes_over_finished_trials_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_study(source, STUDY)
    past = open_ledger(source)
    past.finish(begin(past, 0.25), TrialState.COMPLETE, [0.5, 1e6])
    begin(past, 0.75)
    ledger = Ledger(str(tmp_path / "ledger.journal"), "next", STUDY.objectives)
    assert warm(ledger, source, STUDY.objectives, PLAN.space) == "warm start: 1 trials of source"
    assert warm(ledger, source, STUDY.objectives, PLAN.space) == "warm start: source was taken over before"
    [trial] = ledger.trials()
    assert trial.params["model.router.threshold_init"] == 0.25
    assert done(ledger.trials()) == []
    with pytest.raises(InputError, match="has other objectives"):
        warm(ledger, source, STUDY.objectives[:1], PLAN.space)
