"""The story of a trial, from a results folder of version 0.1.0 and what a newer one adds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from analysis.story import story, trial_table
from routing.cli import main
from routing.errors import InputError

KEPT = Path(__file__).parent.parent / "data" / "version_0_1_0" / "kept"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(KEPT, tmp_path / "kept")
    return tmp_path / "kept"


def test_a_row_per_trial(folder: Path) -> None:
    rows = trial_table(folder).rows
    assert [row["number"] for row in rows] == [0, 1, 2]
    assert {row["state"] for row in rows} == {"complete"}
    assert all(row["model.name"] for row in rows)


def test_the_story_of_one_trial(folder: Path) -> None:
    (folder / "trials" / "1" / "log.txt").write_text("".join(f"line {n}\n" for n in range(30)))
    (folder / "trials" / "1" / "error.txt").write_text("Traceback\nValueError: no luck\n")
    about, changes, history, log, error = story(folder, 1)
    assert about.lines[0] == "trial 1: complete"
    assert about.lines[-1] == f"files: {folder / 'trials' / '1'}"
    keys = {str(row["key"]) for row in changes.rows}
    assert {"model.name", "model.encoder.channels"} <= keys  # the space says them, the base does not
    assert not keys & {"dataset.num_train", "training.num_epochs", "seed"}
    assert [row["epoch"] for row in history.rows] == [1, 2]
    assert "val_accuracy" in history.columns
    assert (log.title.split(", ", 1)[1], log.lines[-1]) == ("the last 20 of 30 lines", "line 29")
    assert error.lines[-1] == "ValueError: no luck"


def test_a_trial_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"no trial 9 \(valid: 0 to 2\)"):
        story(folder, 9)
    assert main(["show", str(folder), "--trial", "9"]) == 2
    assert main(["show", str(folder), "--trial", "0"]) == 0
    assert "History" in capsys.readouterr().out
