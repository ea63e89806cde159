"""docs/notebooks as a reader runs them: every cell, in an empty folder, by a kernel of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def read(path: Path) -> Any:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_a_run_left(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


def executed(path: Path, folder: Path) -> list[str]:
    """Run a notebook in a folder and return what its cells show, as plain text or the kind of a picture."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = read(path)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    asyncio.run(client.async_execute())
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown.append("png" if "image/png" in data else data.get("text/html", data.get("text/plain", output.get("text", ""))))
    return shown


@pytest.mark.slow
def test_a_network_of_ones_own_on_images_of_ones_own(folder: Path) -> None:
    shown = executed(ROOT / "docs" / "notebooks" / "own_network.ipynb", folder)
    assert "png" in shown
    assert any("leaf" in text and "multiply-adds" in text for text in shown)
    assert (folder / "results" / "my_images" / "best" / "best" / "card.md").is_file()
    points = pd.read_csv(folder / "results" / "my_images" / "points.csv")
    assert points["val_accuracy"].max() > 0.6, "three colours are told apart"


@pytest.mark.slow
def test_a_training_script_of_ones_own_is_watched(folder: Path) -> None:
    shown = executed(ROOT / "docs" / "notebooks" / "own_training_script.ipynb", folder)
    assert "png" in shown
    trials = pd.read_csv(folder / "results" / "my_study" / "trials.csv")
    assert len(trials) == 6
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    assert any("6 complete" in text or "pruned" in text for text in shown), "watch ends with the end of the sweep"
