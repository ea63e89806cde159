"""A table as people read it, and its three spellings: page, Markdown, LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from routing.files.names import safe_cell

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "≤": r"$\le$", "≥": r"$\ge$", "−": "$-$",
    "<": "$<$", ">": "$>$", "|": "$|$",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column: its heading, whether it holds numbers (set flush right), whether its text may wrap.

    ``href`` is what a cell links on a page, ``{}`` in it the cell; empty: nothing.
    """

    label: str
    number: bool = False
    wrap: bool = False
    href: str = ""


@dataclass(frozen=True)
class Row:
    """A row of text cells; ``mark`` is its CSS class on the page."""

    cells: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """Text cells under headings, with a caption and a note."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...] = field(default=())
    note: str = ""


def table(
    caption: str,
    headings: Sequence[Column | str],
    rows: Iterable[Sequence[str] | Row],
    note: str = "",
) -> Table:
    """Return a ``Table``; a heading given as text is a column of text."""
    columns = tuple(item if isinstance(item, Column) else Column(item) for item in headings)
    return Table(caption, columns, tuple(r if isinstance(r, Row) else Row(tuple(r)) for r in rows), note)


def to_markdown(content: Table) -> str:
    """Return a GitHub-flavoured Markdown table with caption and note."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(safe_cell(cell).replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"

    rule = f"| {' | '.join('--:' if column.number else '---' for column in content.columns)} |"
    body = [line(c.label for c in content.columns), rule, *(line(row.cells) for row in content.rows)]
    return "\n\n".join(part for part in (f"**{content.caption}**", "\n".join(body), content.note) if part) + "\n"


def to_latex(content: Table) -> str:
    """Return a LaTeX table for the booktabs package, every special character escaped."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(latex(cell) for cell in cells) + r" \\"

    layout = "".join("r" if column.number else "l" for column in content.columns)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex(content.caption)}}}"]
    lines += [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", line(c.label for c in content.columns), r"\midrule"]
    lines += [line(row.cells) for row in content.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if content.note:
        lines += [rf"\par\small {latex(content.note)}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def latex(text: str) -> str:
    """Return text with LaTeX's special characters escaped."""
    return re.sub("|".join(re.escape(sign) for sign in _LATEX), lambda found: _LATEX[found.group()], text)
