"""docs/python.md as it stands: its networks train, its studies run."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pages import ROOT, blocks
from PIL import Image

import routing as public
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


def python(name: str, folder: Path) -> str:
    command = [sys.executable, name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


RUN_HERE = {
    'register_module("gated"', 'register_module("lightning_net"', 'register_module("hugging_face_net"',
    'register_module("timm_model"', "found = saved.predict([", "def train(config, report, seed, out)",
    "RandomForestClassifier", 'routing.sweep("my_study.yaml"', 'out="runs/small"', "routing.dry_run(study", "routing.pruned(",
}  # fmt: skip
"""A text of every Python block of the page; each is run by a test below."""


def test_every_public_function_has_an_example_and_every_example_is_run() -> None:
    shown = [block.text for block in blocks(PAGE, "python")]
    for name in public.__all__:
        assert any(re.search(rf"\brouting\.{name}\b", text) for text in shown), f"routing.{name} has no example"
    for text in shown:
        assert sum(start in text for start in RUN_HERE) == 1, text


def test_the_parts_by_themselves(folder: Path) -> None:
    write("parts.py", "routing.pruned(", folder)
    said = python("parts.py", folder)
    assert "torch.Size([1, 10])" in said
    assert "[ True  True False] [0 0 1] 6.1" in said, "0.9 * 5 + 0.8 * 2"


@pytest.mark.slow
def test_runs_and_studies_as_functions(folder: Path) -> None:
    write("runs.py", 'out="runs/small"', folder)
    write("studies.py", "routing.dry_run(study", folder)
    assert "operating points" in python("runs.py", folder)
    assert "best/knee" in python("studies.py", folder)
    assert (folder / "results" / "small" / "figures" / "front.svg").is_file()


def test_the_prediction_of_photographs(folder: Path) -> None:
    for name, colour in (("cat", "red"), ("dog", "blue")):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (20 + index, 24), colour).save(folder / "images" / name / f"{index}.png")
    shutil.copy(folder / "images" / "cat" / "1.png", folder / "another.png")
    Image.new("RGB", (90, 60), "blue").save(folder / "photo.jpg")
    data = {"dataset": {"name": "image_folder", "root": str(folder / "images"), "input_size": 16}}
    public.train({**data, "training.num_epochs": 1}, folder / "results" / "my_images" / "best" / "knee")
    found = [block.text for block in blocks(PAGE, "python") if "found = saved.predict([" in block.text]
    (folder / "predict.py").write_text(f"import routing\n{found[0]}")
    labels, *rest = python("predict.py", folder).splitlines()
    assert set(ast.literal_eval(labels)) <= {"cat", "dog"}
    assert len(rest) > 2


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
    write("use_results.py", 'routing.sweep("my_study.yaml"', folder)
    python("use_results.py", folder)
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
