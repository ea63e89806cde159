"""Tables of benchmarks as Markdown and JSON, and the command that writes them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from routing import cli
from routing.bench import GROUPS
from routing.bench import groups as benchmarks
from routing.bench.tables import BenchTable, append_markdown, machine, markdown, provenance

TABLE = BenchTable(
    "a title",
    {"way": "way", "flops": "multiply-adds", "ratio": "ratio", "p90": "p90", "n": "rounds"},
    [
        {"way": "ours", "flops": 1_565_840, "ratio": 0.95, "n": 25},
        {"way": "a | b", "flops": None, "ratio": 12.0, "p90": None, "n": 25},
    ],
)
MARKDOWN = """### a title

| way | multiply-adds | ratio | rounds |
| --- | --: | --: | --: |
| ours | 1.57 M | 0.9500 | 25 |
| a \\| b |  | 12 | 25 |"""


def test_markdown_of_a_table() -> None:
    assert markdown(TABLE) == MARKDOWN


def test_provenance_is_command_day_machine_and_versions() -> None:
    found = machine()
    line = provenance("routing bench routing --quick")
    assert re.match(r"`routing bench routing --quick`, \d{4}-\d\d-\d\d: ", line)
    for part in (found["processor"], f"{found['cpu_count']} CPUs", f"Python {found['python']}", "torch ", "optuna "):
        assert part in line
    assert "\n" not in line


def test_tables_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    append_markdown([TABLE], path, "routing bench a")
    first = path.read_text(encoding="utf-8")
    assert first == f"{provenance('routing bench a')}\n\n{MARKDOWN}\n"
    append_markdown([TABLE, TABLE], path, "routing bench b")
    assert path.read_text(encoding="utf-8") == (
        f"{first}\n{provenance('routing bench b')}\n\n{MARKDOWN}\n\n{MARKDOWN}\n"
    )


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Replace every benchmark by one that only notes its call."""
    calls: list[tuple[str, bool]] = []

    def module(path: str) -> SimpleNamespace:
        def bench(quick: bool) -> list[BenchTable]:
            calls.append((path, quick))
            return [BenchTable(path, TABLE.columns, TABLE.rows)]

        return SimpleNamespace(bench=bench)

    monkeypatch.setattr(benchmarks, "import_module", module)
    return calls


def test_the_command_runs_one_or_all(benches: list[tuple[str, bool]], tmp_path: Path) -> None:
    out, notes = tmp_path / "bench.json", tmp_path / "notes.md"
    assert CliRunner().invoke(cli.cli, ["bench", "data", "--out", str(out)]).exit_code == 0
    assert benches == [(GROUPS["data"], False)]
    benches.clear()
    words = ["bench", "--quick", "--out", str(out), "--markdown", str(notes)]
    assert CliRunner().invoke(cli.cli, words).exit_code == 0
    assert benches == [(path, True) for path in GROUPS.values()]
    content = json.loads(out.read_text(encoding="utf-8"))
    assert list(content["tables"]) == list(GROUPS.values())
    assert content["machine"].keys() == machine().keys()
    assert notes.read_text(encoding="utf-8").count("`routing bench ") == len(GROUPS)
    assert "`routing bench replay --quick`" in notes.read_text(encoding="utf-8")


def test_what_was_measured_before_a_failure_is_kept(
    benches: list[tuple[str, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, out = benchmarks.import_module, tmp_path / "bench.json"
    monkeypatch.setattr("search_spaces.bench.replay.DIGITS", tmp_path / "digits.csv")
    monkeypatch.setattr(benchmarks, "import_module", lambda path: _real_replay(path, fake))
    assert cli.main(["bench", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"routing: {tmp_path / 'digits.csv'}: no recording; make one with")
    assert len(json.loads(out.read_text(encoding="utf-8"))["tables"]) == len(GROUPS) - 1


def _real_replay(path: str, fake: Callable[[str], object]) -> object:
    return import_module(path) if path == GROUPS["replay"] else fake(path)


def test_a_benchmark_whose_package_is_missing_is_left_out_of_all(
    benches: list[tuple[str, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, out, words = (
        benchmarks.import_module,
        tmp_path / "bench.json",
        "needs timm: pip install 'routing-sweeps[timm]'",
    )
    monkeypatch.setitem(sys.modules, "timm", None)
    literature = GROUPS["literature"]
    monkeypatch.setattr(
        benchmarks, "import_module", lambda path: import_module(path) if path == literature else fake(path)
    )
    assert cli.main(["bench", "literature", "--out", str(out)]) == 2
    assert words in capsys.readouterr().err
    assert cli.main(["bench", "--out", str(out)]) == 0
    assert f"left out: literature: this benchmark {words}" in capsys.readouterr().out
    assert len(json.loads(out.read_text(encoding="utf-8"))["tables"]) == len(GROUPS) - 1


@pytest.mark.parametrize("name", list(GROUPS))
def test_every_benchmark_is_there(name: str) -> None:
    assert callable(import_module(GROUPS[name]).bench)
