"""Names of several runs side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from routing.errors import InputError
from routing.saved import distinct_names


def test_names_are_as_long_as_it_takes_to_tell_runs_apart() -> None:
    assert distinct_names([Path("a/seed0"), Path("a/seed1")]) == ["seed0", "seed1"]
    assert distinct_names([Path("a/seed0"), Path("b/seed0")]) == ["a-seed0", "b-seed0"]
    with pytest.raises(InputError, match="given twice"):
        distinct_names([Path("a/seed0"), Path("a/../a/seed0")])
