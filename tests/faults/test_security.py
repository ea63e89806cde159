"""A results folder or a study file of unknown origin is read as data, or refused: nothing in it is unpickled or run."""

from __future__ import annotations

import ast
import csv
import html
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from analysis.findings.summary import summarise
from analysis.read.results import read_results
from analysis.report import analyze
from analysis.words.tables import table, to_markdown
from routing.cli import main
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.record import read_metrics
from routing.files.tensors import load_tensors
from routing.files.yaml_io import load_text
from search_spaces.ledger.ledger import Ledger, mend_journal
from search_spaces.ledger.tables import write_table
from search_spaces.study.load import load_study

ROOT = Path(__file__).parents[2]
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
