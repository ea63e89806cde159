"""docs/python.md as it stands: its networks train, its studies run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pages import ROOT, blocks

from routing.files.record import read_metrics

PAGE = ROOT / "docs" / "python.md"
FEW = ["--dataset.num_train", "96", "--dataset.num_val", "48", "--training.num_epochs", "1"]


def write(name: str, start: str, folder: Path) -> None:
    """Write the block of the page that starts, or goes on, with this text."""
    found = [block.text for block in blocks(PAGE, "python", "yaml") if start in block.text]
    assert len(found) == 1, start
    (folder / name).write_text(found[0])


def routing(*words: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "routing", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_network_of_ones_own(folder: Path) -> None:
    write("my_nets.py", 'register_module("gated"', folder)
    write("gated.yaml", "plugins: [my_nets]\nmodel:", folder)
    said = routing("compare", "--config", "gated.yaml", "--models", "gated,conv_net", "--out", "out", *FEW, cwd=folder)
    assert "as executed; no closed form checks them" in said
    points = read_metrics(folder / "out" / "gated" / "seed0")["points"]
    costs = {point["knob_value"]: point["flops"] for point in points}
    assert list(costs) == [0.5, 0.0, 0.3, 0.6, 0.9, 1.0]
    assert costs[0.0] == 1600 * 10
    assert costs[1.0] == 1600 * 10 + 1600 * 128 + 128 * 10
    assert costs[0.0] <= costs[0.3] <= costs[0.6] <= costs[0.9] <= costs[1.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "name"),
    [("lightning", "lightning_net"), ("transformers", "hugging_face_net"), ("timm", "timm_model")],
)
def test_a_network_of_another_library(package: str, name: str, folder: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    write(f"{name}.py", f'register_module("{name}"', folder)
    routing("train", f"--plugins=[{name}]", "--model.name", name, "--out", "run", "--no-figures", *FEW, cwd=folder)
    metrics = read_metrics(folder / "run")["metrics"]
    assert metrics["flops"] > 1e4
    assert metrics["flops"] == metrics["flops_p95"]


@pytest.mark.slow
def test_a_function_swept_and_confirmed(folder: Path) -> None:
    write("my_train.py", "def train(config, report, seed, out)", folder)
    write("my_study.yaml", "name: my_study", folder)
    write("use_results.py", "results = routing.sweep(", folder)
    more = [block.text for block in blocks(PAGE, "python") if "routing.count(config)" in block.text]
    with (folder / "use_results.py").open("a") as program:
        program.write(more[0])
    done = subprocess.run(
        [sys.executable, "use_results.py"], cwd=folder, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "front.png").is_file()
    trials = pd.read_csv(folder / "results" / "my_study" / "trials.csv")
    assert set(trials["state"]) == {"COMPLETE", "PRUNED"}
    assert (trials.loc[trials["state"] == "PRUNED", "epochs"] < 4).all()
    confirmed = pd.read_csv(folder / "results" / "my_study" / "confirm" / "confirm.csv")
    assert (confirmed["n"] == 2).all()
    assert confirmed["test_accuracy_mean"].between(0.1, 1).all()
    assert "winners_curse" in confirmed
    assert "test" in (folder / "results" / "my_study" / "report.html").read_text()


PROGRAM = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
for name, kind in (("--lr", float), ("--seed", int), ("--out", pathlib.Path)):
    parser.add_argument(name, type=kind)
args = parser.parse_args()
(args.out / "result.json").write_text(json.dumps({"error": (args.lr - 0.1) ** 2, "seconds": 1 + args.lr}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my_forest", "my_command"])
def test_a_model_of_scikit_learn_and_a_command(name: str, folder: Path) -> None:
    write("my_forest.py", "RandomForestClassifier", folder)
    (folder / "train.py").write_text(PROGRAM)
    write(f"{name}.yaml", f"name: {name}", folder)
    routing("sweep", f"{name}.yaml", "--concurrency", "2", cwd=folder)
    trials = pd.read_csv(folder / "results" / name / "trials.csv")
    assert set(trials["state"]) == {"COMPLETE"}
    figures = folder / "results" / name / "figures"
    assert (figures / "front.png").is_file()
    assert (figures / "forest.png").is_file() == (name == "my_forest")
