"""Small studies and the folder of importable fake runs, for every test of the study engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from search_spaces.load import parse_study
from search_spaces.schema import Study

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from small_studies import ablation_values, sweep_values  # noqa: E402


@pytest.fixture(autouse=True)
def _workers_find_the_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{ROOT}")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def sweep_study() -> Study:
    return parse_study(sweep_values())


@pytest.fixture
def ablation_study() -> Study:
    return parse_study(ablation_values())
