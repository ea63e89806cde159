"""The whole chain as a user walks it: a real small sweep on Ray, its front, an exported config that reproduces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.findings.summary import summarise
from analysis.read.results import read_results
from routing.cli import main

STUDY = """\
kind: sweep
name: small
question: does the chain hold?
base:
  dataset: {name: digits, num_train: 512, num_val: 200, num_test: 64}
  training: {num_epochs: 2, batch_size: 32}
space:
  model.name: {choice: [attention_routing, full_compute, cheap_compute]}
  model.router.mode: {choice: [learnable_threshold, top_k], when: {model.name: attention_routing}}
  dataset.patch_grid_size: {choice: [4, 5]}
enqueue:
  - {model.name: attention_routing, model.router.mode: learnable_threshold, dataset.patch_grid_size: 5}
  - {model.name: full_compute, dataset.patch_grid_size: 5}
objectives:
  - {metric: val_accuracy, goal: maximize, reference: 0.0}
  - {metric: flops, goal: minimize, reference: 3.0e+6}
sampler: {name: random, seed: 0}
scheduler: {name: none}
trials: 5
"""


def routing(*words: str | Path, cwd: Path, code: int = 0) -> str:
    """Run the command in a process of its own, as a user would; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "routing", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.slow
def test_from_a_study_file_to_a_config_that_reproduces(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "small.yaml").write_text(STUDY)
    assert main(["sweep", "small.yaml", "--dry-run"]) == 0
    assert "5 trials" in capsys.readouterr().out
    printed = routing("sweep", "small.yaml", "--out", "out", "--concurrency", "2", cwd=folder)
    results = folder / "out"
    assert "report.html" in printed
    assert "Traceback" not in printed

    files = {path.name for path in results.iterdir() if not path.name.startswith(".")}
    assert files >= {"study.yaml", "environment.json", "ledger.journal", "trials", "trials.csv", "points.csv"}
    assert files >= {"front.csv", "figures", "report.html"}
    trials = pd.read_csv(results / "trials.csv")
    assert sorted(trials["number"]) == [0, 1, 2, 3, 4]
    assert set(trials["state"]) == {"COMPLETE"}
    points = pd.read_csv(results / "points.csv")
    assert points.groupby("trial")["is_default"].sum().tolist() == [1] * 5
    assert len(points) > len(trials)
    front = pd.read_csv(results / "front.csv")
    assert front["flops"].is_monotonic_increasing
    assert front["val_accuracy"].is_monotonic_increasing

    assert main(["sweep", "small.yaml", "--out", "out"]) == 2
    assert "--resume" in capsys.readouterr().err

    assert main(["export", "out", "--pick", "knee", "--pick", "best"]) == 0
    summary = summarise(read_results(results))
    assert summary.knee_row is not None
    chosen = {"knee": summary.knee_row, "best": front.loc[front["val_accuracy"].idxmax()]}
    for pick in ("knee", "best"):
        exported = results / "best" / pick
        assert {path.name for path in exported.iterdir()} >= {"config.yaml", "model.safetensors", "card.md"}
        again_words = ("train", "--config", str(exported / "config.yaml"), "--out", f"again-{pick}", "--no-figures")
        if pick == "knee":  # as another day, in a process of its own
            routing(*again_words, cwd=folder)
        else:
            assert main(list(again_words)) == 0
        again = json.loads((folder / f"again-{pick}" / "metrics.json").read_text())
        row = chosen[pick]
        assert again["metrics"]["val_accuracy"] == row["val_accuracy"]
        assert again["metrics"]["flops"] == pytest.approx(row["flops"], abs=0)
        assert main(["evaluate", str(exported)]) == 0
        saved = json.loads((exported / "evaluation_val.json").read_text())
        assert saved["points"][0]["val_accuracy"] == row["val_accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("trials: 5", "trials: many"), "small.yaml"),
        (("num_epochs: 2", "num_epoch: 2"), "num_epochs"),
        (("learnable_threshold, top_k", "learnable_threshold, topk"), "top_k"),
        (("name: digits", "name: digit"), "digits"),
        (("maximize", "maximise"), "maximize"),
    ],
)
def test_a_bad_study_writes_nothing(folder: Path, change: tuple[str, str], message: str) -> None:
    (folder / "small.yaml").write_text(STUDY.replace(*change))
    printed = routing("sweep", "small.yaml", "--out", "out", cwd=folder, code=2)
    assert message in printed
    assert printed.count("\n") == 1
    assert not (folder / "out").exists()


def test_more_cpus_than_the_machine_has(folder: Path) -> None:
    (folder / "small.yaml").write_text(STUDY)
    printed = routing("sweep", "small.yaml", "--out", "out", "--concurrency", "4096", cwd=folder, code=2)
    assert "4096" in printed
    assert not (folder / "out").exists()
