"""README, CONTRIBUTING and docs/: every command parses, every snippet resolves, every link and file exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from commands import check, command_lines, inline_commands
from pages import PAGES, ROOT, SHELL, anchors, blocks, inline_code, links
from snippets import check as check_snippet

import routing
from routing.cli import cli
from routing.config.run import RunConfig
from routing.files.yaml_io import load_text
from search_spaces.study.load import load_study, parse_study
from search_spaces.study.schema import AblationStudy, SweepStudy

STUDY: dict[str, Any] = {
    "kind": "sweep",
    "name": "around",
    "space": {"model.name": ["full_compute", "cheap_compute"]},
    "objectives": [{"metric": "flops", "goal": "minimize", "reference": 1e7}],
    "trials": 1,
}
READMES = ("README.md", "README.zh-CN.md")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


@every_page
def test_shell_commands(page: Path) -> None:
    for block in blocks(page, *SHELL):
        for words in command_lines(block.text):
            try:
                check(words)
            except Exception as error:
                raise AssertionError(f"{block}: {' '.join(words)}: {error}") from error


@every_page
def test_commands_in_the_text(page: Path) -> None:
    for code in inline_code(page):
        if re.match(r"(routing|make|pytest|pip) ", code.text):
            for words in inline_commands(code.text):
                try:
                    check(words, mentioned=True)
                except Exception as error:
                    raise AssertionError(f"{code}: {error}") from error


@every_page
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page, ""):
        assert not re.search(r"^\$? ?(routing|pip|make) ", block.text, re.MULTILINE), f"{block}: commands without `sh`"


@every_page
def test_python_snippets(page: Path) -> None:
    known: set[str] = set()
    for block in blocks(page, "python"):
        try:
            known |= check_snippet(block.text, known)
        except Exception as error:
            raise AssertionError(f"{block}: {error}") from error


@every_page
def test_yaml_blocks(page: Path, tmp_path: Path) -> None:
    """A study loads; keys of a study are tried in a small one; everything else is a run."""
    for block in blocks(page, "yaml"):
        values = load_text(block.text, str(block))[0]
        if "plugins" in values or "plugins" in values.get("base", {}):
            continue  # tests/routing/test_extending.py writes that plugin and runs it
        if {"run", "command"} & set(values):
            continue  # tests/docs/test_python_page.py writes that script and runs it
        if "kind" in values:
            file = tmp_path / (block.file or "study.yaml")
            file.write_text(block.text)
            assert load_study(file).kind == values["kind"], block
        elif set(values) <= {*SweepStudy.model_fields, *AblationStudy.model_fields}:
            parse_study({**STUDY, **values}, str(block))
        else:
            RunConfig.from_dict(values, str(block))


@every_page
def test_links_and_anchors(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link.text):
            continue
        path, _, anchor = unquote(link.text).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@every_page
def test_files_and_tests_named_in_the_text(page: Path) -> None:
    """``routing/registry.py``, ``faults/test_disk.py`` (below tests/) and ``...::test_name`` exist."""
    for code in inline_code(page):
        named = re.fullmatch(r"((?:[\w-]+/)+[\w.-]+\.(?:py|md|sh|ya?ml|png))(?:::(\w+))?", code.text)
        if named is None or named[1].startswith(("results/", "runs/", "figures/", "trials/")):
            continue
        found = [file for root in (ROOT, ROOT / "tests", ROOT / "docs") if (file := root / named[1]).is_file()]
        assert found, code
        assert not named[2] or f"def {named[2]}(" in found[0].read_text(encoding="utf-8"), code


def test_reliability_names_a_test_for_every_fault() -> None:
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) >= 20
    for row in rows[1:]:
        assert re.search(r"`\w+/test_\w+\.py|the same \|$", row), row


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {link.text.partition("#")[0] for link in links(ROOT / "README.md")}
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        assert name == "README.md" or name in linked, f"README.md does not link {name}"


def test_the_chinese_readme_shows_the_same_commands() -> None:
    commands = {name: [words for block in blocks(ROOT / name, *SHELL) for words in command_lines(block.text)] for name in READMES}
    assert commands["README.zh-CN.md"] == commands["README.md"]


def test_the_chinese_readme_has_the_same_sections_rows_and_links() -> None:
    """Rows by how many links and pieces of code they have, which no translation changes."""
    shapes = []
    for name in READMES:
        text = (ROOT / name).read_text(encoding="utf-8")
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        pages = [link.text for link in links(ROOT / name) if not link.text.startswith(("#", "README"))]
        shapes.append((text.count("\n## "), [(row.count("]("), row.count("`")) for row in rows], sorted(pages)))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", READMES)
def test_a_readme_lists_every_command(name: str) -> None:
    rows = [line for line in (ROOT / name).read_text().splitlines() if line.startswith("| `routing ")]
    listed = {word for row in rows for word in re.findall(r"`routing (\w+)", row.split(" | ")[0])}
    assert listed == set(cli.commands)


def test_the_citation_names_this_version() -> None:
    citation = load_text((ROOT / "CITATION.cff").read_text(), "CITATION.cff")[0]
    assert citation["version"] == routing.__version__
    for name in READMES:
        assert f"version = {{{routing.__version__}}}" in (ROOT / name).read_text()
        assert citation["title"] in (ROOT / name).read_text()
