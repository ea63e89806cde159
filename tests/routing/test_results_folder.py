"""The names in a results folder are defined once, and states are Optuna's; how a file is written there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from routing.files import results_folder
from routing.files.atomic import write_text
from routing.files.results_folder import COMPLETE, FAIL, PRUNED, RUNNING, WAITING

ROOT = Path(__file__).parents[2]
HOME = Path(results_folder.__file__)


def names() -> set[str]:
    """Return the file names, states and words that stand nowhere else by chance; other folders have locks too."""
    found = {value for name, value in vars(results_folder).items() if name.isupper() and isinstance(value, str)}
    return {value for value in found if "." in value[1:] or value.isupper() or "_" in value[1:-1]}


def literals(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_names_are_defined_once() -> None:
    files = [file for package in ("routing", "search_spaces", "analysis") for file in (ROOT / package).rglob("*.py")]
    assert {"study.yaml", "COMPLETE", "winners_curse"} <= names()
    again = {
        (str(file.relative_to(ROOT)), value)
        for file in files
        if file != HOME
        for value in names().intersection(literals(file))
    }
    assert not again


def test_states_are_those_of_the_ledger() -> None:
    assert {WAITING, RUNNING, COMPLETE, PRUNED, FAIL} == {state.name for state in TrialState}


def test_a_study_file_alone_is_no_results_folder(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").touch()
    assert not results_folder.is_results_folder(tmp_path)
    (tmp_path / "trials").mkdir()
    assert results_folder.is_results_folder(tmp_path)


def test_an_error_of_writing_names_the_file_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "front.csv").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write_text(tmp_path / "front.csv", "x")
    assert raised.value.filename == str(tmp_path / "front.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["front.csv"]
