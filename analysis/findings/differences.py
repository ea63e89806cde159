"""What differs between the declarations of studies, and between the environments they ran in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.read.results import Results
from analysis.words.tables import Column, Table, table

IGNORED = ("environment.command", "environment.started", "study.name", "study.question", "study.cost")
"""What differs between any two studies and explains nothing."""
MAX_TEXT = 160


def differences(results: Sequence[Results], names: Sequence[str]) -> Table:
    """Return a row for every key of the resolved study, and of the environment, that is not the same in all of them.

    Args:
        names: of the studies, headings of their columns.
    """
    flat = [_flat({"study": one.study, "environment": one.environment}) for one in results]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if not key.startswith(IGNORED)]
    rows = []
    for key in keys:
        texts = [one.get(key, "") for one in flat]
        if len(set(texts)) > 1:
            rows.append([key.removeprefix("study."), *(_short(text) for text in texts)])
    headings = [Column("key"), *(Column(name, wrap=True) for name in names)]
    note = "" if rows else "Nothing but their names, questions and commands."
    return table("What differs between the studies", headings, rows, note)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Return nested keys as one dotted key each, with values as text; a key that holds dots itself stays one."""
    if not isinstance(value, dict):
        return {prefix: "" if value is None else str(value)}
    found: dict[str, str] = {}
    for key, item in value.items():
        found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..."
