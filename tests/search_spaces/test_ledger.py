"""The ledger on disk: requeueing, recovery, damage, foreign ledgers, warm start."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from small_studies import ablation_values, sweep_values

from routing.errors import InputError
from routing.files.results_folder import CONFIG_FILE, METRICS_FILE, trial_folder
from search_spaces import sweep
from search_spaces.ledger.folder import write_study
from search_spaces.ledger.ledger import GONE, REASON, RETRY_OF, Ledger, done, mend_journal, setting_of
from search_spaces.ledger.resume import drop_gone, enqueue_missing, next_proposal, settle, total_trials, warm
from search_spaces.plan import Blueprint, blueprint
from search_spaces.study.load import parse_study

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


def write_run(folder: Path, threshold: float) -> None:
    """Leave what a finished run leaves."""
    write_metrics(folder)
    config = PLAN.configure({**PARAMS, "model.router.threshold_init": threshold})
    (folder / CONFIG_FILE).write_text(config.to_yaml())


def results(folder: Path, space: dict[str, Any]) -> tuple[Ledger, Blueprint]:
    """An empty results folder of a study of this space."""
    folder.mkdir()
    study = parse_study(sweep_values(space=space))
    write_study(folder, study)
    return open_ledger(folder), blueprint(study)


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
    write_run(trial_folder(tmp_path, begin(ledger)), threshold=0.5)
    assert settle(ledger, tmp_path, STUDY.objectives, PLAN) == ["0 interrupted trials are queued again, 1 had finished"]
    [trial] = ledger.trials()
    assert (trial.state, trial.values) == (TrialState.COMPLETE, [0.8, 1e6])


def test_the_result_of_another_run_in_its_folder_is_not_the_trials(tmp_path: Path) -> None:
    # a ledger that lost its end gave the number out again; the driver died before the folder was emptied
    ledger = open_ledger(tmp_path)
    folder = trial_folder(tmp_path, begin(ledger, threshold=0.5))
    write_run(folder, threshold=-1.0)
    assert settle(ledger, tmp_path, STUDY.objectives, PLAN) == ["1 interrupted trials are queued again"]
    assert [trial.state for trial in ledger.trials()] == [TrialState.FAIL, TrialState.WAITING]
    assert not (folder / METRICS_FILE).exists()


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


def test_a_write_that_finds_no_room_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(tmp_path)
    journal = tmp_path / "ledger.journal"
    whole = journal.read_bytes()

    def half(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        with journal.open("ab") as file:
            file.write(json.dumps(logs[0]).encode()[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", half)
        with pytest.raises(OSError, match="No space left"):
            begin(ledger)
    assert journal.read_bytes() == whole
    begin(ledger, 0.25)  # there is room again, in the same process
    assert [trial.params["model.router.threshold_init"] for trial in open_ledger(tmp_path).trials()] == [0.25]


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


def test_an_arm_that_runs_again_is_counted_once(tmp_path: Path) -> None:
    ablation = blueprint(parse_study(ablation_values(seeds=[0])))
    ledger = open_ledger(tmp_path)
    enqueue_missing(ledger, ablation.enqueue)
    for number in range(5):
        ledger.finish(number, TrialState.COMPLETE, [0.5, 1e6])
        if number:
            write_metrics(trial_folder(tmp_path, number))
    settle(ledger, tmp_path, STUDY.objectives, ablation)
    ledger.finish(5, TrialState.COMPLETE, [0.5, 1e6])
    write_metrics(trial_folder(tmp_path, 5))
    assert total_trials(ledger, ablation) == len(done(ledger.trials())) == 5


def test_queued_settings_that_the_study_lost_fail_and_count_for_nothing(tmp_path: Path) -> None:
    whole = blueprint(parse_study(ablation_values()))
    less = blueprint(parse_study(ablation_values(factors={"dataset.patch_grid_size": [4, 8]})))
    ledger = open_ledger(tmp_path)
    enqueue_missing(ledger, whole.enqueue)
    ledger.start({}, {}, {}, ledger.trials()[1])  # an arm that goes is interrupted
    for trial in ledger.trials((TrialState.RUNNING,)):
        ledger.requeue(trial, "interrupted")
    assert drop_gone(ledger, whole.space) == []
    assert drop_gone(ledger, less.space) == ["4 queued settings are no longer in the study"]
    gone = [trial for trial in ledger.trials() if trial.user_attrs.get(REASON) == GONE]
    assert {setting_of(trial)["arm"] for trial in gone} == {"mode=random", "mode=top_k"}
    assert all(trial.state == TrialState.FAIL for trial in gone)
    assert total_trials(ledger, less) == 6
    enqueue_missing(ledger, whole.enqueue)  # the arms are back
    assert len(ledger.trials((TrialState.WAITING,))) == total_trials(ledger, whole) == 10


def test_queued_settings_outside_a_narrowed_space_fail(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for setting in ({"model.router.threshold_init": 1.5}, {"model.router.threshold_init": 0.5}, {"seed": 3}):
        ledger.enqueue(setting)
    narrow = blueprint(parse_study(sweep_values(space={"model.router.threshold_init": {"float": [-1.0, 1.0]}})))
    drop_gone(ledger, narrow.space)
    assert [trial.state.name for trial in ledger.trials()] == ["FAIL", "WAITING", "FAIL"]


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
    past.finish(begin(past, -0.5), TrialState.COMPLETE, [0.6, 1e6])  # as if killed before it was taken over, too
    assert warm(ledger, source, STUDY.objectives, PLAN.space) == "warm start: 1 trials of source"
    assert [trial.params["model.router.threshold_init"] for trial in ledger.trials()] == [0.25, -0.5]
    with pytest.raises(InputError, match="has other objectives"):
        warm(ledger, source, STUDY.objectives[:1], PLAN.space)
    source.rename(tmp_path / "gone")
    assert warm(ledger, source, STUDY.objectives, PLAN.space) == "warm start: source was taken over before"


def test_warm_start_takes_what_the_changed_choices_still_have(tmp_path: Path) -> None:
    past, plan = results(tmp_path / "past", {"dataset.patch_grid_size": [4, 5, 8]})
    for grid in (4, 8, 5):
        labels = {"dataset.patch_grid_size": grid}
        past.finish(past.start(labels, plan.space.distributions(), {}), TrialState.COMPLETE, [0.5, 1e6])
    ledger, changed = results(tmp_path / "next", {"dataset.patch_grid_size": [8, 4]})
    line = warm(ledger, tmp_path / "past", STUDY.objectives, changed.space)
    assert line == "warm start: 2 trials of past, 1 others do not fit the space"
    assert [trial.params["dataset.patch_grid_size"] for trial in ledger.trials()] == [4, 8]
    ledger.enqueue({"dataset.patch_grid_size": 8})
    [waiting] = ledger.trials((TrialState.WAITING,))
    ledger.start({"dataset.patch_grid_size": 8}, changed.space.distributions(), {}, waiting)
    open_ledger(tmp_path / "next").check_distributions(changed.space.distributions())


def test_warm_start_leaves_the_other_folder_as_it_is(tmp_path: Path) -> None:
    past, plan = results(tmp_path / "past", sweep_values()["space"])
    past.finish(begin(past), TrialState.COMPLETE, [0.5, 1e6])
    journal = tmp_path / "past" / "ledger.journal"
    with journal.open("a") as file:  # its sweep is running, and in the middle of an entry
        file.write('{"op_code": 4, "work')
    before = journal.read_bytes()
    line = warm(open_ledger(tmp_path), tmp_path / "past", STUDY.objectives, plan.space)
    assert line == "warm start: 1 trials of past"
    assert journal.read_bytes() == before
    journal.unlink()
    with pytest.raises(InputError, match=r"past/ledger.journal: not readable: No such file"):
        warm(results(tmp_path / "next", sweep_values()["space"])[0], tmp_path / "past", STUDY.objectives, plan.space)
    assert not journal.exists()


def test_a_storage_belongs_to_one_results_folder(tmp_path: Path) -> None:
    where = str(tmp_path / "elsewhere.journal")  # as an sqlite:// address, but quicker
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    Ledger(where, "small", STUDY.objectives).claim(first, resume=False)
    for resume in (False, True):
        with pytest.raises(InputError, match=rf"its study 'small' belongs to {first}; .* choose another --storage"):
            sweep(STUDY, second, storage=where, resume=resume)
        assert list(second.iterdir()) == []
    with pytest.raises(InputError, match="holds a study 'small' already; go on with --resume"):
        sweep(STUDY, first, storage=where)
    moved = first.rename(tmp_path / "moved")
    Ledger(where, "small", STUDY.objectives).claim(moved, resume=True)
    with pytest.raises(InputError, match=rf"belongs to {moved}"):
        Ledger(where, "small", STUDY.objectives).claim(second, resume=True)


def test_trials_are_never_given_out_again_by_a_ledger_that_does_not_know_them(tmp_path: Path) -> None:
    where = str(tmp_path / "elsewhere.journal")
    kept = tmp_path / "results" / "trials" / "0" / "metrics.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    with pytest.raises(InputError, match=r"trials is there, but no ledger\.journal that knows its trials"):
        sweep(STUDY, tmp_path / "results")  # a folder with foreign files
    write_study(tmp_path / "results", STUDY)
    with pytest.raises(InputError, match=r"trials is there, but no ledger\.journal that knows its trials"):
        sweep(STUDY, tmp_path / "results", resume=True)
    with pytest.raises(InputError, match=r"elsewhere\.journal holds no study 'small'"):
        sweep(STUDY, tmp_path / "results", resume=True, storage=where)
    Ledger(where, "small", STUDY.objectives).claim(tmp_path / "results", resume=True)
    with pytest.raises(InputError, match="keeps its ledger elsewhere; give the --storage it was started with"):
        sweep(STUDY, tmp_path / "results", resume=True)
    (tmp_path / "results" / "ledger_id.txt").unlink()
    (tmp_path / "results" / "ledger.journal").touch()
    with pytest.raises(InputError, match=r"keeps its ledger in ledger\.journal; leave out --storage"):
        sweep(STUDY, tmp_path / "results", resume=True, storage=where)
    assert kept.read_text() == "{}"


def test_a_ledger_with_trials_outlives_a_refused_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(tmp_path)
    begin(ledger)

    def refused(*_: object) -> None:
        raise InputError("no Ray cluster answers at auto")

    monkeypatch.setattr("search_spaces.driver.session", refused)
    with pytest.raises(InputError, match="no Ray cluster answers"):
        sweep(STUDY, tmp_path, resume=True)  # its study.yaml was lost
    assert len(open_ledger(tmp_path).trials()) == 2


def test_a_storage_keeps_nothing_of_a_refused_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise InputError("no Ray cluster answers at auto")

    monkeypatch.setattr("search_spaces.driver.session", refused)
    where = f"sqlite:///{tmp_path}/elsewhere.db"
    for _ in range(2):  # the second time as if it were the first
        with pytest.raises(InputError, match="no Ray cluster answers"):
            sweep(STUDY, tmp_path / "out", storage=where)
        assert list((tmp_path / "out").iterdir()) == []
