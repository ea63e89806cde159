"""optuna-dashboard gets a results folder: read back through Optuna's and its own interface."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pandas as pd
import pytest

from analysis.dashboard import write_dashboard
from analysis.findings.summary import summarise
from analysis.read.results import read_results
from analysis.report import analyze
from routing.cli import main
from routing.errors import InputError


def worsen_knee(folder: Path) -> int:
    """Put the points of the knee's trial behind all others; return its number."""
    knee = int(summarise(read_results(folder)).knee_row["trial"])
    points = pd.read_csv(folder / "points.csv")
    points.loc[points["trial"] == knee, ["val_accuracy", "flops"]] = [0.01, 1e8]
    points.to_csv(folder / "points.csv", index=False)
    return knee


@pytest.fixture
def with_ledger(make_results, only_the_front) -> Path:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    folder = make_results(trials=7)
    add_trials(folder, 9)
    analyze(folder, refresh=1)
    return folder


def add_trials(folder: Path, count: int) -> None:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "ledger.journal"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="synthetic",
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )
    for _ in range(count):
        study.tell(study.ask(), [0.5, 3e5])


def opened(journal: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))


def notes_of(study: optuna.Study) -> dict[int, str]:
    from optuna_dashboard import get_note

    trials = (optuna.Trial(study, trial._trial_id) for trial in study.trials)
    return {trial.number: note for trial in trials if (note := get_note(trial))}


def test_dashboard_gets_notes_and_the_front_and_leaves_the_ledger_alone(with_ledger, capsys):
    from optuna_dashboard import get_note

    ledger = (with_ledger / "ledger.journal").read_bytes()
    assert main(["analyze", str(with_ledger), "--dashboard"]) == 0
    journal = with_ledger / "dashboard/study.journal"
    opens = f"look at it: optuna-dashboard {journal} --artifact-dir {journal.parent / 'artifacts'}"
    assert opens in capsys.readouterr().out
    assert (with_ledger / "ledger.journal").read_bytes() == ledger
    study, found = opened(journal), summarise(read_results(with_ledger))
    assert len(study.trials) == 9
    notes = notes_of(study)
    assert {n for n, note in notes.items() if note.startswith("**On the front**")} == set(found.front["trial"])
    assert [n for n, note in notes.items() if "the knee among them" in note] == [int(found.knee_row["trial"])]
    assert notes[8].startswith("Failed: loss is nan in epoch 2.")
    assert "| trial |" in get_note(study)
    (picture,) = optuna.artifacts.get_all_artifact_meta(study)
    assert picture.filename == "front.png"
    stored = journal.parent / "artifacts" / picture.artifact_id
    assert stored.read_bytes() == (with_ledger / "figures/front.png").read_bytes()


def test_dashboard_follows_a_sweep_that_goes_on(with_ledger):
    journal = write_dashboard(with_ledger).journal
    first = journal.read_bytes()
    write_dashboard(with_ledger)
    assert journal.read_bytes() == first  # nothing has changed
    add_trials(with_ledger, 1)
    knee = worsen_knee(with_ledger)
    (with_ledger / "figures/front.png").write_bytes(b"another picture")
    write_dashboard(with_ledger)
    assert journal.read_bytes().startswith(first)  # a dashboard that has read so far goes on from there
    study = opened(journal)
    assert len(study.trials) == 10
    assert knee not in notes_of(study)
    (picture,) = optuna.artifacts.get_all_artifact_meta(study)
    assert (journal.parent / "artifacts" / picture.artifact_id).read_bytes() == b"another picture"


def test_dashboard_of_another_ledger_begins_again(with_ledger):
    journal = write_dashboard(with_ledger).journal
    (with_ledger / "ledger.journal").unlink()
    add_trials(with_ledger, 2)
    write_dashboard(with_ledger)
    assert len(opened(journal).trials) == 2


def test_dashboard_needs_a_ledger_in_the_folder(with_ledger):
    (with_ledger / "ledger.journal").unlink()
    shutil.rmtree(with_ledger / "dashboard", ignore_errors=True)
    with pytest.raises(InputError, match=r"has no ledger\.journal"):
        write_dashboard(with_ledger)
    assert not (with_ledger / "dashboard").exists()
