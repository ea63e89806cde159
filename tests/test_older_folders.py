"""What version 0.1.0 left behind (tests/data/version_0_1_0) is read, resumed, exported and confirmed by today's code.

The folders were made by ``routing sweep`` and ``routing train`` of commit 714ded4; figures, reports and the weights of
the best epoch were taken out to keep them small.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import analysis
import routing
import search_spaces
from routing.files.record import read_metrics

DATA = Path(__file__).parent / "data" / "version_0_1_0"
FOURTH = ("aacn", "0.001266815276208298")
"""Model and learning rate that 0.1.0 itself proposes as the fourth trial."""


def accuracy(folder: Path) -> float:
    """Return the share of validation images that a saved model gets right."""
    saved = routing.load(folder)
    split = saved.config.dataset.load()["val"]
    scores = saved.predict(torch.as_tensor(split.images)).prediction
    return float((scores.argmax(dim=1) == torch.as_tensor(split.targets)).float().mean())


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str)


def test_a_saved_run_predicts_what_it_did() -> None:
    assert accuracy(DATA / "run") == pytest.approx(read_metrics(DATA / "run")["metrics"]["val_accuracy"])


@pytest.mark.slow
def test_a_sweep_goes_on_and_is_analysed_exported_and_confirmed(tmp_path: Path) -> None:
    results = shutil.copytree(DATA / "kept", tmp_path / "kept")
    search_spaces.sweep(results / "study.yaml", results, trials=4, resume=True, concurrency=1)
    for name, rows in (("trials.csv", 3), ("points.csv", None)):
        before, after = table(DATA / "kept" / name), table(results / name)
        pd.testing.assert_frame_equal(after[before.columns][: rows or len(before)], before)
    fourth = table(results / "trials.csv").iloc[3]
    assert (fourth["model.name"], fourth["training.learning_rate"]) == FOURTH
    assert fourth["state"] in ("COMPLETE", "PRUNED")

    found = analysis.analyze([results, shutil.copytree(DATA / "kept_arms", tmp_path / "kept_arms")])
    assert sum(found.states.values()) == 4
    assert found.problems == []
    before, after = table(DATA / "kept" / "front.csv"), table(results / "front.csv")
    if "3" not in set(after["trial"]):
        pd.testing.assert_frame_equal(after[before.columns], before)
    [arms] = found.others
    assert arms.states == {"COMPLETE": 3}
    assert (arms.folder / "tables" / "ablation.csv").is_file()

    [best] = analysis.export(results, ["trial=0"])
    assert {path.name for path in best.iterdir()} == {"config.yaml", "model.safetensors", "card.md"}
    assert accuracy(best) == pytest.approx(read_metrics(results / "trials" / "0")["metrics"]["val_accuracy"])

    search_spaces.confirm(results, seeds=2, concurrency=1)
    confirmed = pd.read_csv(results / "confirm" / "confirm.csv")
    full_compute = 1  # trained again under the same seeds, so that the claim against it is confirmed too
    assert set(confirmed["trial"]) == {*found.front["trial"], full_compute}
    assert set(confirmed["n"]) == {2}
    assert confirmed["test_accuracy_mean"].between(0, 1).all()
