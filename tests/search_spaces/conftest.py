"""Small studies and the folder of importable fake runs, for every test of the study engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_spaces.on_ray.session import session
from search_spaces.study.load import parse_study
from search_spaces.study.schema import ResourcesSection, Study

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from small_studies import ablation_values, sweep_values  # noqa: E402


@pytest.fixture(autouse=True)
def _workers_find_the_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    find_the_fakes(monkeypatch)


def find_the_fakes(patch: pytest.MonkeyPatch) -> None:
    """Have workers of a Ray started from now on import the fake runs."""
    patch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{ROOT}")
    patch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="module")
def standing_ray() -> Iterator[None]:
    """Ray of two CPUs, started once: every sweep of this process joins it, as in a notebook."""
    with pytest.MonkeyPatch.context() as patch:
        find_the_fakes(patch)
        with session(None, 2, ResourcesSection()):
            yield


@pytest.fixture
def sweep_study() -> Study:
    return parse_study(sweep_values())


@pytest.fixture
def ablation_study() -> Study:
    return parse_study(ablation_values())
