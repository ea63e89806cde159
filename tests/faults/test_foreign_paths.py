"""Words and links in a results folder of unknown origin lead to no file outside of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from small_studies import sweep_values

from analysis.figures.drawing import new_figure, save
from analysis.read.results import read_results
from analysis.report import analyze
from routing.cli import main
from routing.errors import InputError
from routing.files.links import check_links
from routing.files.names import file_name
from routing.files.yaml_io import dump, load_file
from search_spaces.study.load import parse_study

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", ["..", "../up", "/etc/x", "a/b", "a\\b", "", ".hidden", "a\nb", "x" * 81])
def test_a_study_name_is_no_path(name: str) -> None:
    with pytest.raises(InputError, match="name"):
        parse_study(sweep_values(name=name))


def test_words_of_a_study_are_never_paths_to_write(results: Path, tmp_path: Path) -> None:
    """A foreign results folder whose every name climbs out: analyze and export write below it only."""
    up = "../../../escaped"
    study = load_file(results / "study.yaml")[0]
    study |= {"name": up, "question": up, "space": {up: {"float": [0.0, 1.0]}, **study["space"]}}
    (results / "study.yaml").write_text(dump(study))
    for file in ("trials.csv", "points.csv"):
        lines = (results / file).read_text().splitlines()
        lines = [f"{lines[0]},{up},arm", *(f"{line},{index},{up}" for index, line in enumerate(lines[1:]))]
        (results / file).write_text("\n".join(lines) + "\n")
    before = {path for path in tmp_path.rglob("*") if results not in path.parents}
    analyze([results])
    assert main(["export", str(results), "--pick", "best"]) == 0
    for pick in (f"trial={up}", up, f"budget={up}"):
        assert main(["export", str(results), "--pick", pick]) == 2
    assert {path for path in tmp_path.rglob("*") if results not in path.parents} == before
    assert not list(tmp_path.parent.glob("escaped*"))


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file of the user's that a link in a results folder points at."""
    path = tmp_path / "thesis.txt"
    path.write_text("three years of work")
    yield path
    assert path.read_text() == "three years of work"


@pytest.mark.parametrize("place", ["figures", "best", "confirm", "trials/0/figures"])
def test_folders_that_are_links_are_refused(results: Path, tmp_path: Path, place: str, capsys: Capture) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(results / place, ignore_errors=True)
    (results / place).symlink_to(tmp_path / "elsewhere")
    for words in (["analyze"], ["export", "--pick", "best"], ["confirm"]):
        assert main([words[0], str(results), *words[1:]]) == 2, words
        assert f"{place} is a link to" in capsys.readouterr().err
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "place", ["figures/front.png", "report.html", "environment.json", "trials/0/model.safetensors"]
)
def test_files_that_are_links_are_neither_written_nor_read(results: Path, theirs: Path, place: str) -> None:
    (results / place).parent.mkdir(parents=True, exist_ok=True)
    (results / place).unlink(missing_ok=True)
    (results / place).symlink_to(theirs)
    for words in (["analyze"], ["export", "--pick", "best"]):
        assert main([words[0], str(results), *words[1:]]) == 2, words


@pytest.mark.parametrize("name", [".lock", "ledger.journal"])
def test_hard_links_of_what_is_opened_in_place_are_refused(results: Path, theirs: Path, name: str) -> None:
    (results / name).unlink(missing_ok=True)
    os.link(theirs, results / name)
    assert main(["sweep", str(results), "--resume", "--out", str(results)]) == 2


def test_links_within_the_folder_and_to_it_are_fine(results: Path, tmp_path: Path) -> None:
    (results / "latest").symlink_to("trials/0")
    (tmp_path / "shortcut").symlink_to(results)
    check_links(tmp_path / "shortcut")
    read_results(tmp_path / "shortcut")


def test_a_figure_replaces_a_link_instead_of_following_it(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "front.png").symlink_to(theirs)
    save(new_figure(1, 1), tmp_path, "front", ["png"])
    assert not (tmp_path / "front.png").is_symlink()


@pytest.mark.parametrize("words", ["x/../../../y", "a" * 300, "..", "", "a b", "/etc/passwd", "ü" * 200])
def test_words_become_names_of_files_and_no_paths(words: str, tmp_path: Path) -> None:
    name = file_name(words)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / f"sensitivity_{name}.png").write_text("")
    assert [path.parent.name for path in tmp_path.rglob("*.png")] == ["inside"]
    assert file_name(words + "?") != name


def test_plain_names_stay() -> None:
    assert file_name("sensitivity_threshold") == "sensitivity_threshold"
