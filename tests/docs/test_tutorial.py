"""docs/tutorial.md as a reader follows it: its files written, its commands run in order, on less of everything."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import onnxruntime
import pandas as pd
import pytest
from commands import command_lines
from pages import ROOT, SHELL, blocks

from routing.cli import main
from search_spaces.on_ray.session import session
from search_spaces.study.schema import ResourcesSection

PAGE = ROOT / "docs" / "tutorial.md"
LESS = {
    '{"train": 200, "val": 50, "test": 50}': '{"train": 20, "val": 10, "test": 10}',
    "num_epochs: 8": "num_epochs: 1",
    "--training.num_epochs 8": "--training.num_epochs 1",
    "trials: 16": "trials: 6",
    "--samples 4": "--samples 1",
    "--seeds 3": "--seeds 1",
    "--seeds 5": "--seeds 2",
    "--out runs/again": "--out runs/again --no-figures",
    "--pick budget=5e5": "--pick budget=5e6",
}


def less(text: str) -> str:
    """Return a block with fewer images, epochs, trials and seeds."""
    for written, smaller in LESS.items():
        text = text.replace(written, smaller)
    return text


def test_what_is_made_smaller_is_on_the_page() -> None:
    for written in LESS:
        assert written in PAGE.read_text(encoding="utf-8")


def follow(page: Path) -> None:
    """Write the files of a page and run its commands, in order."""
    for block in blocks(page, "python", "yaml", *SHELL):
        if block.file:
            Path(block.file).write_text(less(block.text))
        elif block.kind in SHELL:
            for program, *words in command_lines(less(block.text)):
                if program == "python":
                    runpy.run_path(words[0])
                else:
                    assert program == "routing"
                    assert main(words) == 0, f"{block}: {words}"


@pytest.mark.slow
def test_the_tutorial_from_images_to_onnx(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with session(None, 2, ResourcesSection()):  # Ray is started once, not by every command
        follow(PAGE)

    results = folder / "results" / "my_images"
    assert set(pd.read_csv(results / "trials.csv")["state"]) <= {"COMPLETE", "PRUNED"}
    assert (pd.read_csv(results / "confirm" / "confirm.csv")["n"] == 2).all()
    assert len(pd.read_csv(folder / "runs" / "compare" / "compare.csv")) == 7
    chosen = pd.read_csv(results / "front.csv")
    again = json.loads((folder / "runs" / "again" / "metrics.json").read_text())["metrics"]
    assert ((chosen["val_accuracy"] == again["val_accuracy"]) & (chosen["flops"] == again["flops"])).any()
    assert (
        onnxruntime.InferenceSession(results / "best" / "knee" / "model.onnx").get_inputs()[0].type == "tensor(uint8)"
    )
    assert (folder / "runs" / "first" / "attention" / "attention_analysis_report.md").is_file()
