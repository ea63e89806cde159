"""docs/reliability.md names tests; each must exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_named_in_the_table_exists() -> None:
    text = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:faults|search_spaces)/[\w.]+)(?:::(\w+))?`", text)
    assert len(named) >= 15
    for file, name in named:
        assert (TESTS / file).is_file(), file
        assert not name or f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), name
