"""Words of a study or of a plugin as names of files and cells of tables, which they must not be more than."""

from __future__ import annotations

import hashlib
import re
from typing import Any

_LONGEST = 80
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.\s\[]|inf|nan|$)")
"""How a cell begins that a spreadsheet would run; a number is none."""


def file_name(words: str) -> str:
    """Return words as the name of a file: letters, digits, ``_``, ``.`` and ``-``, not hidden, no longer than 80.

    Different words give different names: where something had to be changed, a digest of the words is added.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", words).lstrip(".")[:_LONGEST]
    return name if name == words else f"{name}-{hashlib.sha256(words.encode(errors='replace')).hexdigest()[:8]}"


def safe_cell(value: Any) -> Any:
    """Return the value of a table's cell, an apostrophe before text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
