"""What a study has cost: by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.findings.cost import cost_table
from analysis.read.results import Results
from routing.objectives import Objective

TRIALS = pd.DataFrame(
    {
        "number": [0, 1, 2, 3, 4],
        "state": ["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WARM_START"],
        "reason": ["", "stopped", "no luck", "", ""],
        "seconds": [3600, 30, None, None, 999],
        "cpu_seconds": [3500, 28, None, None, 999],
        "epochs": [4, 1, None, None, 4],
        "training.num_epochs": [4, 4, 4, 4, 4],
    }
)


def rows(study: dict[str, object], trials: pd.DataFrame = TRIALS) -> dict[str, str]:
    results = Results(
        None, study, {}, [Objective(metric="flops", goal="minimize", reference=1.0)], trials, pd.DataFrame(), []
    )  # type: ignore[arg-type]
    return {row.cells[0]: row.cells[1] for row in cost_table(results).rows}


def test_time_of_trials_and_what_stopping_has_saved() -> None:
    assert rows({}) == {
        "time of all trials together": "1 h 00 min",
        "CPU time": "58 min 48 s",
        "saved by early stopping": "3 epochs, about 1 min 30 s",
    }


@pytest.mark.parametrize(("gpu", "text"), [(0.5, "30 min 15 s"), (2, "2 h 01 min")])
def test_a_share_of_a_gpu(gpu: float, text: str) -> None:
    assert rows({"resources": {"gpu": gpu}})[f"GPU time, {gpu:g} of one per trial"] == text


def test_tables_without_any_of_it() -> None:
    assert rows({"resources": None}, TRIALS[["number", "state", "reason"]]) == {"time of all trials together": "0 s"}
