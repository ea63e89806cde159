"""A results folder for optuna-dashboard (extra ``dashboard``): its ledger with notes and the picture of the front.

The notes go into a copy of the ledger: a sweep that runs is the only writer of its own.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from analysis.exports.logged import FRONT_PICTURE, places
from analysis.findings.confirmed import read_confirmed
from analysis.findings.summary import Summary, summarise
from analysis.page.headline import headline, verdict
from analysis.page.tables import failure_table, front_table
from analysis.read.journal import open_journal
from analysis.read.results import read_results
from analysis.words.tables import to_markdown
from analysis.words.words import state_in_words
from routing.errors import InputError, RoutingError
from routing.files.atomic import write_bytes
from routing.files.results_folder import FAIL, LEDGER_FILE, PRUNED, REPORT_FILE

FOLDER, JOURNAL, ARTIFACTS = "dashboard", "study.journal", "artifacts"
OWN_KEYS = (b'"dashboard:', b'"artifacts:')
"""In a line of the journal: it is a note or an artifact, and not the sweep's."""

ON_FRONT_WORDS = "**On the front**"
"""Begin the note of such a trial; one that is no longer there loses it."""


@dataclass(frozen=True)
class Dashboard:
    """What optuna-dashboard opens: a journal, and the folder of its artifacts."""

    journal: Path
    artifacts: Path

    @property
    def command(self) -> str:
        """The whole command."""
        return shlex.join(["optuna-dashboard", str(self.journal), "--artifact-dir", str(self.artifacts)])


def write_dashboard(folder: str | Path) -> Dashboard:
    """Write ``RESULTS/dashboard``: the ledger with notes for the study and its trials, and the front's picture.

    Called again while a sweep runs, it adds what is new; a dashboard that is open shows it. A note of the study, of a
    trial of the front, or of one that failed or was stopped is replaced where it is no longer true.

    Raises:
        InputError: not a results folder, its ledger is a database, or optuna-dashboard is not installed.
        RoutingError: the folder cannot be written to.
    """
    try:
        import optuna_dashboard  # noqa: F401
    except ImportError:
        raise InputError("--dashboard needs optuna-dashboard: pip install 'routing-sweeps[dashboard]'") from None
    results = read_results(folder)
    ledger, journal = results.folder / LEDGER_FILE, results.folder / FOLDER / JOURNAL
    if not ledger.is_file():
        raise InputError(f"{results.folder} has no {LEDGER_FILE}: optuna-dashboard opens its database, without notes")
    try:
        _follow(ledger, journal)
        _annotate(summarise(results), journal)
    except OSError as error:
        raise RoutingError(f"{journal.parent} cannot be written to: {error.strerror or error}") from None
    return Dashboard(journal, journal.parent / ARTIFACTS)


def _follow(ledger: Path, journal: Path) -> None:
    """Append what the ledger has beyond its copy; a copy that is none of it is made again."""
    lines = _whole_lines(ledger)
    copied = _whole_lines(journal)
    if lines[: len(copied)] == copied and copied:
        with journal.open("ab") as file:
            file.writelines(lines[len(copied) :])
        return
    journal.parent.mkdir(exist_ok=True)
    write_bytes(journal, b"".join(lines))


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a journal that are written to their end, without notes and artifacts."""
    content = path.read_bytes() if path.is_file() else b""
    lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
    return [line for line in lines if not any(key in line for key in OWN_KEYS)]


def _annotate(summary: Summary, journal: Path) -> None:
    import optuna
    from optuna_dashboard import get_note, save_note

    study, storage = open_journal(journal)
    study_id = storage.get_study_id_from_name(study.study_name)
    notes = _trial_notes(summary)
    for trial in study.get_trials(deepcopy=False):
        opened = optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, trial.number))
        former = get_note(opened)
        note = notes.get(trial.number, "" if former.startswith(ON_FRONT_WORDS) else former)
        if former != note:
            save_note(opened, note)
    note = _study_note(summary)
    if get_note(study) != note:
        save_note(study, note)
    picture = summary.results.folder / FRONT_PICTURE
    if picture.is_file():
        _show(picture, study, journal.parent / ARTIFACTS)


def _show(picture: Path, study: Any, folder: Path) -> None:
    """Attach the picture to the study, or replace it."""
    from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

    folder.mkdir(exist_ok=True)
    store = FileSystemArtifactStore(folder)
    former = [meta.artifact_id for meta in get_all_artifact_meta(study) if meta.filename == picture.name]
    if former:
        store.write(former[-1], BytesIO(picture.read_bytes()))
    else:
        upload_artifact(artifact_store=store, file_path=str(picture), study_or_trial=study)


def _study_note(summary: Summary) -> str:
    results = summary.results
    confirmed = read_confirmed(results)
    parts = [f"## {verdict(summary, confirmed)}", *headline(summary, confirmed=confirmed)]
    parts += [to_markdown(front_table(summary))] if len(summary.front) else []
    failures = failure_table(results)
    parts += [to_markdown(failures)] if failures.rows else []
    return "\n\n".join([*parts, f"Report: `{(results.folder / REPORT_FILE).resolve()}`"])


def _trial_notes(summary: Summary) -> dict[int, str]:
    """Return what is said of a trial: that it is on the front, the knee, or why it did not finish."""
    results, (on_front, knee) = summary.results, places(summary)
    counts = summary.front["trial"].value_counts()
    notes = {}
    for _, row in results.trials.iterrows():
        number, state = int(row["number"]), str(row["state"])
        if number in on_front:
            count = int(counts[number])
            with_knee = ", the knee among them" if number in knee else ""
            said = f"{ON_FRONT_WORDS} with {count} operating point{'s' if count > 1 else ''}{with_knee}."
        elif state in (FAIL, PRUNED):
            reason = row["reason"] if isinstance(row["reason"], str) else "no reason is known"
            said = f"{state_in_words(state).capitalize()}: {reason}."
        else:
            continue
        notes[number] = f"{said}\n\nFiles: `{results.trial_folder(number).resolve()}`"
    return notes
