"""A results folder or a study file of unknown origin can do no harm: it is read as data, or refused."""

from __future__ import annotations

import ast
import csv
import html
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_studies import sweep_values

from analysis.figures.drawing import new_figure, save
from analysis.findings.summary import summarise
from analysis.read.results import read_results
from analysis.report import analyze
from analysis.words.tables import table, to_markdown
from routing.cli import main
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.atomic import write_text
from routing.files.links import check_links
from routing.files.mirror import Mirror
from routing.files.names import file_name
from routing.files.record import read_metrics
from routing.files.results_folder import ENVIRONMENT_FILE
from routing.files.secrets import error_without_secrets, without_secrets
from routing.files.tensors import load_tensors, save_tensors
from routing.files.yaml_io import dump, load_file, load_text
from search_spaces.ledger.folder import write_environment
from search_spaces.ledger.ledger import Ledger, mend_journal
from search_spaces.ledger.tables import write_table
from search_spaces.study.load import load_study, parse_study

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]
SOURCES = sorted(path for name in ("routing", "search_spaces", "analysis") for path in (ROOT / name).rglob("*.py"))


class Trap:
    """Unpickled, it makes a folder: the sign that foreign code has run."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return __import__("os").mkdir, (str(self.sign),)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in a source file by its dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def given(call: ast.Call, name: str) -> object:
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sign")))
    assert (tmp_path / "sign").is_dir()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_reads_code_out_of_data(path: Path) -> None:
    for name, call in calls(path):
        where = f"{path.name}:{call.lineno}"
        assert name not in {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}, where
        assert "pickle" not in name, where
        assert "joblib" not in name, where
        assert given(call, "shell") in (None, "False"), where
        if name == "torch.load":
            assert given(call, "weights_only") == "True", where
        if name in ("np.load", "numpy.load"):
            assert given(call, "allow_pickle") == "False", where


def test_planted_pickles_are_never_unpickled(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sign = tmp_path / "sign"
    plain = pickle.dumps(Trap(sign))
    torch.save({"weight": Trap(sign)}, tmp_path / "zipped")
    trial = results / "trials" / "0"
    (trial / "checkpoint.safetensors").write_bytes(plain)
    for name in ("model.pt", "model.pth", "model.pkl", "checkpoint.pt", "study.pkl", "trials.pkl", "tuner.pkl"):
        (results / name).write_bytes(plain)
        (trial / name).write_bytes(plain)
    for content in (plain, (tmp_path / "zipped").read_bytes()):
        for number in ("0", "1"):
            (results / "trials" / number / "model.safetensors").write_bytes(content)
        assert main(["analyze", str(results)]) == 0
        assert main(["export", str(results), "--pick", "knee", "--pick", "trial=0"]) == 2
        assert main(["evaluate", str(trial)]) == 2
        assert main(["attention", str(trial), "--out", str(tmp_path / "attention")]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("routing:")]
        assert len(errors) == 3
        assert all("not a readable safetensors file" in line for line in errors)
    assert not sign.exists()


def test_pickles_in_place_of_every_file_are_named(results: Path, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    files = [path for path in sorted(results.rglob("*")) if path.is_file()]
    assert len(files) >= 12
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(pickle.dumps(Trap(sign)))
        for read in (
            lambda: summarise(read_results(results)),
            lambda: load_study(results),
            lambda: [read_metrics(results / "trials" / number) for number in ("0", "1")],
            lambda: [RunConfig.from_yaml(results / "trials" / number / "config.yaml") for number in ("0", "1")],
            lambda: [load_tensors(results / "trials" / number / "model.safetensors") for number in ("0", "1")],
            lambda: mend_journal(results / "ledger.journal"),
            lambda: Ledger(str(results / "ledger.journal"), "small", load_study(results).objectives),
        ):
            try:
                read()
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017
        path.write_bytes(whole)
    assert not sign.exists()


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mkdir ['{sign}']", "!!python/name:os.system", "!!python/tuple [1]"]
)
def test_yaml_makes_no_objects(tmp_path: Path, tag: str) -> None:
    text = f"name: {tag.format(sign=tmp_path / 'sign')}\n"
    with pytest.raises(InputError, match="not valid YAML"):
        load_text(text)
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(InputError, match=r"study\.yaml:1"):
        load_study(tmp_path / "study.yaml")
    assert not (tmp_path / "sign").exists()


def test_a_bomb_of_aliases_is_refused_or_cheap(tmp_path: Path) -> None:
    """Nine levels of nine aliases each would be 9**9 scalars."""
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)]
    text = "\n".join(["kind: sweep", "l0: &l0 [x, x, x, x, x, x, x, x, x]", *levels])
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(InputError):
        load_study(tmp_path / "study.yaml")


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


def test_the_environment_file_holds_chosen_names_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hunter2-very-secret"
    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "HF_TOKEN", "PASSWORD", "WANDB_API_KEY"):
        monkeypatch.setenv(name, secret)
    storage = f"postgresql://someone:{secret}@db.example/studies?sslpassword={secret}"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/routing", "sweep", "digits", "--storage", storage])
    write_environment(tmp_path, parse_study(sweep_values()), 2, 3)
    text = (tmp_path / ENVIRONMENT_FILE).read_text()
    assert secret not in text
    assert set(json.loads(text)) == {
        "versions", "platform", "cpu_count", "cpu", "device", "threads", "concurrency", "seed", "command",
        "git_commit", "started",
    }  # fmt: skip
    assert json.loads(text)["command"][-1] == "postgresql://someone:***@db.example/studies?sslpassword=***"
    with pytest.raises(InputError) as raised:
        Ledger(f"postgresql://someone:{secret}@127.0.0.1:1/none", "small", parse_study(sweep_values()).objectives)
    assert secret not in str(raised.value)


@pytest.mark.parametrize("text", ["--model.router.mode", "sqlite:///a/b.db", "model.monkey=4", "10.0.0.1:6379", "a@b"])
def test_words_without_a_secret_stay(text: str) -> None:
    assert without_secrets(text) == text


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:SE/CR@ET@bucket/x", "s3://KEY:***@bucket/x"),
        ("https://TOKEN@host/x", "https://***@host/x"),
        ("abfs://c@a/x?sig=SECRET&y=1", "abfs://c@a/x?sig=***&y=1"),
        ("secret_key=SECRET", "secret_key=***"),
        ("access_key=SECRET account_key=SECRET", "access_key=*** account_key=***"),
        ("u?api_key=SECRET&pwd=SECRET", "u?api_key=***&pwd=***"),
        ("u?X-Amz-Signature=SECRET", "u?X-Amz-Signature=***"),
        ("design=2", "design=2"),
    ],
)
def test_secrets_are_struck_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_library_that_quotes_a_secret_in_pieces_is_not_repeated() -> None:
    url = "nosuch://KEY:SE/CR:ET@bucket/x"
    error = ValueError("Port could not be cast to integer value as 'SE', nor CR of bucket")
    assert error_without_secrets(error, url) == "Port could not be cast to integer value as '***', nor *** of bucket"
    with pytest.raises(InputError) as refused:
        Mirror("s3://KEY:TOPSECRET/z@bucket/x")
    assert "TOPSECRET" not in str(refused.value)


def test_files_are_as_private_as_the_user_says(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_text(tmp_path / "text", "x")
        save_tensors(tmp_path / "tensors", {"x": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("cell", "safe"),
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("+x", "'+x"), ("-x", "'-x"), ("-1.5 [-3, 0]", "-1.5 [-3, 0]"), ("-", "-")],
)
def test_cells_are_no_formulas(cell: str, safe: str, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [{"x": cell, "y": -1.5}])
    assert [safe, "-1.5"] in list(csv.reader((tmp_path / "t.csv").open()))
    assert f"| {safe} |" in to_markdown(table("t", ["x"], [[cell]]))


def test_the_report_forbids_what_it_does_not_bring(results: Path) -> None:
    page = html.unescape(analyze([results]).report.read_text())
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", page)
    assert nonce is not None
    assert f'<script nonce="{nonce[1]}">' in page
    assert "default-src 'none'" in page
