"""The Markdown pages taken apart: fenced blocks, inline code, links, headings.

A fenced block after a paragraph that starts with a file name in backticks is that file: "`run.yaml` beside it:".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
NAMES = ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")
PAGES = [ROOT / name for name in NAMES] + sorted((ROOT / "docs").glob("*.md"))
SHELL = ("sh", "bash")
CONSOLE = "console"

_NAMED = re.compile(r"^`([\w.-]+\.(?:py|yaml|sh))`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text and line, and the file it stands for, if any."""

    page: str
    line: int
    kind: str
    text: str
    file: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Inline:
    """Text between backticks, or the target of a link."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@functools.cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *kinds: str) -> list[Block]:
    """Return the fenced blocks of these languages, in order."""
    found, before = [], ""
    for token in tokens(page):
        if token.type == "inline":
            before = token.content
        elif token.type == "fence":
            assert token.map is not None
            if token.info in kinds:
                named = _NAMED.match(before)
                file = named[1] if named else None
                found.append(Block(_name(page), token.map[0] + 1, token.info, token.content, file))
            before = ""
    return found


def _inlines(page: Path) -> Iterator[tuple[int, Token]]:
    line = 0
    for token in tokens(page):
        line = token.map[0] + 1 if token.map else line
        for child in token.children or ():
            yield line, child


def inline_code(page: Path) -> list[Inline]:
    return [Inline(_name(page), line, token.content) for line, token in _inlines(page) if token.type == "code_inline"]


def links(page: Path) -> list[Inline]:
    """Return the targets of links and images."""
    attributes = {"link_open": "href", "image": "src"}
    return [
        Inline(_name(page), line, str(token.attrs[attributes[token.type]]))
        for line, token in _inlines(page)
        if token.type in attributes
    ]


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found: dict[str, int] = {}
    slugs = set()
    for heading, inline in zip(tokens(page), tokens(page)[1:], strict=False):
        if heading.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            count = found[slug] = found.get(slug, -1) + 1
            slugs.add(f"{slug}-{count}" if count else slug)
    return frozenset(slugs)


@functools.cache
def files_shown() -> dict[str, str]:
    """Return the files that pages tell the reader to write, by name."""
    return {block.file: block.text for page in PAGES for block in blocks(page, "python", "yaml", "sh") if block.file}
