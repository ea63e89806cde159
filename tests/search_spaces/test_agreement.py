"""A ledger of which one line was lost, doubled or swapped never labels a result with another trial's settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState
from small_studies import sweep_values

from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.results_folder import CONFIG_FILE, LEDGER_FILE, METRICS_FILE, trial_folder
from search_spaces import sweep
from search_spaces.ledger.folder import write_study
from search_spaces.ledger.ledger import Ledger, mend_journal
from search_spaces.ledger.opening import Opening
from search_spaces.plan import blueprint
from search_spaces.study.load import parse_study

STUDY = parse_study(sweep_values(trials=4, enqueue=[{"model.router.threshold_init": 1.5}]))
PLAN = blueprint(STUDY)


def build(out: Path) -> Path:
    """Write what a finished sweep of four trials leaves; the first was enqueued, and two ran at once."""
    out.mkdir()
    write_study(out, STUDY)
    ledger = Ledger(str(out / LEDGER_FILE), STUDY.name, STUDY.objectives)
    ledger.enqueue({"model.router.threshold_init": 1.5})
    numbers = []
    for index in range(4):
        labels = {"model.router.threshold_init": 1.5 - index, "model.router.temperature": 1.0 + index / 4}
        waiting = ledger.trials()[0] if index == 0 else None
        numbers.append(ledger.start(labels, PLAN.space.distributions(), {"proposal": index}, waiting))
        folder = trial_folder(out, numbers[-1])
        folder.mkdir(parents=True)
        (folder / CONFIG_FILE).write_text(PLAN.configure(PLAN.space.restore(labels)).to_yaml())
        metrics = {"val_accuracy": 0.5 + index / 10, "flops": 1e6 + index}
        (folder / METRICS_FILE).write_text(json.dumps({"metrics": metrics, "points": []}))
    for index, number in enumerate(numbers):
        ledger.finish(number, TrialState.COMPLETE, [0.5 + index / 10, 1e6 + index])
    return out


def opening(out: Path) -> Opening:
    return Opening(STUDY, PLAN, out, None, True, [], False, None, blueprint)


def mislabelled(ledger: Ledger, out: Path) -> list[int]:
    """Return the finished trials of a ledger whose settings are not those of the run in their folder."""
    wrong = []
    for trial in ledger.trials((TrialState.COMPLETE,)):
        ran = RunConfig.from_yaml(trial_folder(out, trial.number) / CONFIG_FILE).dotted()
        if any(ran[key] != value for key, value in trial.params.items()) or not trial.params:
            wrong.append(trial.number)
    return wrong


def lost(lines: list[bytes], at: int) -> list[bytes]:
    return lines[:at] + lines[at + 1 :]


def doubled(lines: list[bytes], at: int) -> list[bytes]:
    return [*lines[: at + 1], *lines[at:]]


def swapped(lines: list[bytes], at: int) -> list[bytes]:
    return [*lines[:at], *lines[at : at + 2][::-1], *lines[at + 2 :]]


@pytest.mark.parametrize("damage", [lost, doubled, swapped])
def test_any_one_line(tmp_path: Path, damage: Callable[[list[bytes], int], list[bytes]]) -> None:
    out = build(tmp_path / "out")
    journal = out / LEDGER_FILE
    whole = journal.read_bytes()
    lines, refused = whole.splitlines(keepends=True), 0
    opening(out).open()
    for at in range(len(lines)):
        journal.write_bytes(b"".join(damage(lines, at)))
        before = journal.read_bytes()
        try:
            ledger, _, _ = opening(out).open()
        except InputError:
            refused += 1
            assert journal.read_bytes() == before
        else:
            assert mislabelled(ledger, out) == []
    assert refused >= 2


def test_the_trial_and_the_line_are_named(tmp_path: Path) -> None:
    out = build(tmp_path / "out")
    journal = out / LEDGER_FILE
    lines = journal.read_bytes().splitlines(keepends=True)
    creations = [at for at, line in enumerate(lines) if b'"op_code":4' in line]
    lines[creations[1]], lines[creations[2]] = lines[creations[2]], lines[creations[1]]
    journal.write_bytes(b"".join(lines))
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    expected = rf"trial 1 \(line {creations[1] + 1}\): model.router.\w+ is \S+ in the ledger and \S+ in config"
    with pytest.raises(InputError, match=expected):
        sweep(STUDY, out, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files


def test_a_ledger_that_lost_its_end_names_the_finished_trials_it_does_not_know(tmp_path: Path) -> None:
    out = build(tmp_path / "out")
    journal = out / LEDGER_FILE
    content = journal.read_bytes()
    journal.write_bytes(content[: content.index(b"\n", content.index(b'"op_code":4', content.index(b'"op_code":5')))])
    (out / "trials.csv").write_text("number,state\n0,COMPLETE\n1,COMPLETE\n2,COMPLETE\n3,COMPLETE\n4,RUNNING\n")
    _, _, notes = opening(out).open()
    assert any("ledger.journal is lost and with it 4 of 5 trials of trials.csv" in note for note in notes), notes
    assert any("does not know 3 finished trials of trials/ (1, 2, 3)" in note for note in notes), notes


@pytest.mark.parametrize("line", [b"[" * 200_000 + b"\n", b"[1]\n", b"\x00\x00\n"])
def test_a_line_that_no_reader_takes_is_named(tmp_path: Path, line: bytes) -> None:
    out = build(tmp_path / "out")
    journal = out / LEDGER_FILE
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], line, *lines[1:]]))
    with pytest.raises(InputError, match=r"ledger.journal:2: not a readable ledger entry"):
        mend_journal(journal)
    with pytest.raises(InputError, match=r"ledger.journal:2: not a readable ledger entry"):
        opening(out).open()
