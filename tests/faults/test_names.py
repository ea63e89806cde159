"""Files and folders of the user's with the names of our packages, in the folder that a command is given in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
STUDY = """
kind: ablation
name: tiny
run: my_script:train
factors: {value: [1, 2]}
seeds: [0]
objectives:
  - {metric: score, goal: maximize, reference: 0}
  - {metric: price, goal: minimize, reference: 10}
"""


def folder_with_our_names(folder: Path) -> None:
    (folder / "routing.py").write_text("raise RuntimeError('not ours')")
    for name in ("analysis", "search_spaces"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("")


@pytest.mark.slow
def test_a_sweep_beside_files_of_our_names(folder: Path) -> None:
    folder_with_our_names(folder)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "my_script.py").write_text(
        "def train(config):\n    return {'score': 1, 'price': config.get('value', 3)}\n"
    )
    # the installed command has not the current folder on its path; `python -c` and `python -m` have
    program = "import sys; sys.path.pop(0); from routing.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "sweep", "study.yaml", "--concurrency", "1"],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(pd.read_csv(folder / "results" / "tiny" / "trials.csv")["state"]) == {"COMPLETE"}


def test_a_program_of_the_users_is_told_which_folder_stands_in_for_ours(folder: Path) -> None:
    folder_with_our_names(folder)
    (folder / "routing.py").unlink()
    program = f"""
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]  # as an installed one
sys.path.append({str(ROOT)!r})
import routing
routing.Results("results")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert "analysis/__init__.py, found before the package of routing-sweeps: rename it" in last
