"""Code that comes with results or a study of unknown origin is not run, whatever its plugins are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_studies import sweep_values

from routing.cli import main
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.yaml_io import dump
from search_spaces.study.load import load_study


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results from elsewhere in a folder of one's own, with code beside every file that could name it."""
    sign = tmp_path / "sign"
    root = tmp_path / "mine" / "foreign"
    for folder in (root, root / "code", root / "trials", root / "trials" / "0"):
        folder.mkdir(parents=True)
        for name in ("payload", "__init__"):
            (folder / f"{name}.py").write_text(f"import os\nos.makedirs({str(sign)!r}, exist_ok=True)\n")
    (root / "trials" / "0" / "metrics.json").write_text("{}")
    (root / "trials.csv").write_text("number\n0\n")
    monkeypatch.chdir(root.parent)
    yield root
    assert not sign.exists()


def name_plugin(foreign: Path, name: str) -> None:
    (foreign / "trials" / "0" / "config.yaml").write_text(dump({"plugins": [name]}))
    (foreign / "study.yaml").write_text(dump(sweep_values(base={"plugins": [name]})))


@pytest.mark.parametrize("name", ["foreign", "foreign.payload", "foreign.code.payload", "foreign.trials.0.payload"])
def test_results_bring_no_code_along(foreign: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    name_plugin(foreign, name)
    for words in (
        ["evaluate", "foreign/trials/0"],
        ["attention", "foreign/trials/0"],
        ["export", "foreign", "--pick", "trial=0"],
        ["train", "--config", "foreign/trials/0/config.yaml"],
        ["confirm", "foreign"],
        ["sweep", "foreign", "--dry-run"],
        ["sweep", "foreign/study.yaml", "--out", "foreign", "--resume"],
    ):
        assert main(words) == 2, words
        assert "plugins" in capsys.readouterr().err or words[0] in ("export", "confirm")


@pytest.mark.parametrize("inside", [".", "trials", "trials/0"])
def test_not_even_where_one_stands_in_them(foreign: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name_plugin(foreign, "payload")
    monkeypatch.chdir(foreign / inside)
    with pytest.raises(InputError, match="came with"):
        RunConfig.from_yaml(foreign / "trials" / "0" / "config.yaml")
    with pytest.raises(InputError, match="came with"):
        load_study(foreign / "study.yaml")


def test_nor_does_a_study_file_in_a_folder_of_its_own(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (foreign / "code" / "some.yaml").write_text(dump(sweep_values(base={"plugins": ["foreign.code.payload"]})))
    with pytest.raises(InputError, match="came with"):
        load_study("foreign/code/some.yaml")


def test_code_of_ones_own_is_imported(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder the command is given in, beside one's own study there, or from PYTHONPATH."""
    for folder in (foreign.parent, tmp_path / "library", tmp_path / "project"):
        folder.mkdir(exist_ok=True)
        (folder / f"plugin_of_{folder.name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "library"))
    for name in ("plugin_of_mine", "plugin_of_library"):
        name_plugin(foreign, name)
        assert RunConfig.from_yaml(foreign / "trials" / "0" / "config.yaml").plugins == (name,)
        assert load_study(foreign).base["plugins"] == [name]
    monkeypatch.chdir(tmp_path / "project")
    (tmp_path / "project" / "study.yaml").write_text(dump(sweep_values(base={"plugins": ["plugin_of_project"]})))
    assert load_study("study.yaml").base["plugins"] == ["plugin_of_project"]


def test_the_folder_of_the_command_is_never_on_the_path(results: Path, tmp_path: Path) -> None:
    """What a library looks for on its own, an optional package say, is not taken from there; a plugin named is."""
    sign, here = tmp_path / "sign", tmp_path / "here"
    here.mkdir()
    for name in ("numexpr", "bottleneck", "beside"):
        (here / f"{name}.py").write_text(f"import os\nos.makedirs({str(sign)!r}, exist_ok=True)\n")
    (here / "plugin_of_here.py").write_text("")
    program = (
        "import sys; sys.path.remove(''); from routing.config.plugins import import_plugins;"
        "import_plugins(['plugin_of_here']);"
        "assert 'plugin_of_here' in sys.modules; import pandas;"
        "import_plugins(['plugin_that_looks_beside'])"
    )
    (here / "plugin_that_looks_beside.py").write_text("import beside\n")
    done = subprocess.run([sys.executable, "-c", program], cwd=here, capture_output=True, text=True, check=False)
    assert "InputError: plugins: 'plugin_that_looks_beside' cannot be imported: no module 'beside'" in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "routing", "analyze", str(results)],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not sign.exists()
