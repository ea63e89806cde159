"""What environment.json says of the runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_studies import ablation_values, sweep_values

from routing.files.results_folder import ENVIRONMENT_FILE
from search_spaces.ledger.folder import write_environment
from search_spaces.study.load import parse_study


def environment(out: Path, values: dict[str, Any]) -> dict[str, Any]:
    write_environment(out, parse_study(values), concurrency=1, seed=0)
    content: dict[str, Any] = json.loads((out / ENVIRONMENT_FILE).read_text())
    return content


def test_threads_and_device_are_those_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    plain = environment(tmp_path, sweep_values())
    assert (plain["threads"], plain["device"]) == (1, "cpu")
    shared = environment(tmp_path, sweep_values(resources={"gpu": 0.5}))
    assert shared["device"] == "auto (cuda on this machine)"
    chosen = environment(tmp_path, sweep_values(base={"threads": 4, "device": "cpu"}, resources={"cpu": 4}))
    assert (chosen["threads"], chosen["device"]) == (4, "cpu")
    searched = environment(tmp_path, sweep_values(space={"threads": [1, 2]}))
    assert searched["threads"] == "by trial"
    compared = environment(tmp_path, ablation_values(factors={"threads": [2, 4]}))
    assert compared["threads"] == "by trial"
