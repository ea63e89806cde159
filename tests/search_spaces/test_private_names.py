"""Private names of Ray and Optuna stand in one file each; one that is missing costs its feature, and that is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import search_spaces
from search_spaces.on_ray import private
from search_spaces.on_ray.start import errors_unsaid, lean_start, lean_trials

ROOT = Path(search_spaces.__file__).parents[1]
OF_RAY = re.compile(r"ray\._private|ray\.air\._internal|ray\.tune\.execution")
OF_OPTUNA = re.compile(r"from optuna[\w.]*\._|optuna(?:\.\w+)*\._|\._trial_id|\._study_id")


@pytest.mark.parametrize(
    ("pattern", "file"),
    [(OF_RAY, "search_spaces/on_ray/private.py"), (OF_OPTUNA, "search_spaces/ledger/ledger.py")],
    ids=["ray", "optuna"],
)
def test_they_stand_in_one_file(pattern: re.Pattern[str], file: str) -> None:
    sources = [path for package in ("routing", "search_spaces", "analysis") for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in sources if pattern.search(path.read_text(encoding="utf-8"))}
    assert {path for path in found if "/bench/" not in path} == {file}


def test_this_version_lacks_none() -> None:
    assert private.lost_features() == []


@pytest.mark.parametrize("one", private.ALL, ids=lambda one: one.name)
def test_a_missing_one_costs_its_feature_and_is_said(one: private.Private, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(one.holder(), one.name)
    (line,) = private.lost_features()
    assert one.name in line
    assert one.lost in line
    with lean_start(), errors_unsaid(), lean_trials():
        assert one.get() is None, "it is left as it is"
    assert not hasattr(one.holder(), one.name)


def test_a_module_that_is_gone_is_no_error() -> None:
    gone = private.Private("ray._private.no_such_module:Node", "start", "speed")
    assert gone.get() is None
    with private.replaced({gone: None}):
        pass
    assert private.Private("ray._private.services", "no_such_name", "speed").get() is None


def test_what_is_replaced_comes_back() -> None:
    before = private.PRINT.get()
    with private.replaced({private.PRINT: print}):
        assert private.PRINT.get() is print
    assert private.PRINT.get() is before
