"""``routing.Results``: what a folder holds, as an object."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

import routing
from routing.errors import InputError
from search_spaces.ledger.folder import locked

KEPT = Path(__file__).parents[1] / "data" / "version_0_1_0"


@pytest.fixture
def results(folder: Path) -> routing.Results:
    shutil.copytree(KEPT / "kept", folder / "kept")
    return routing.Results(str(folder / "kept"))


def test_tables_are_those_of_the_folder(results: routing.Results) -> None:
    points = pd.read_csv(results.folder / "points.csv")
    front = pd.read_csv(results.folder / "front.csv")
    assert len(results.points) == len(points)
    assert results.front["flops"].tolist() == pytest.approx(front["flops"].tolist())
    assert results.study["kind"] == "sweep"
    assert results.confirmed.empty
    assert set(results.trials["number"]) == {0, 1, 2}
    assert "3 complete" in repr(results)
    assert "<table" in results._repr_html_()
    assert (results.folder / "front.csv").stat().st_mtime == (KEPT / "kept" / "front.csv").stat().st_mtime


def test_picks(results: routing.Results) -> None:
    points, best = results.points, results.best
    assert best is not None
    assert best["val_accuracy"] == points["val_accuracy"].max()
    limit = float(points["flops"].median())
    within = points[points["flops"] <= limit]
    assert results.pick(flops=limit)["val_accuracy"] == within["val_accuracy"].max()
    wanted = float(points["val_accuracy"].median())
    enough = points[points["val_accuracy"] >= wanted]
    for key in ("accuracy", "val_accuracy"):
        assert results.pick(**{key: wanted})["flops"] == enough["flops"].min()
    assert results.pick(trial=1)["trial"] == 1
    assert results.pick("knee").equals(results.knee)
    for wrong, why in (({"accuracy": 2.0}, "no point has accuracy >= 2"), ({"speed": 1.0}, "'speed' is no objective")):
        with pytest.raises(InputError, match=why):
            results.pick(**wrong)
    for wrong in ({"flops": "4e5"}, {"trial": None}, {"accuracy": True}):
        with pytest.raises(InputError, match="is no number"):
            results.pick(**wrong)
    with pytest.raises(InputError, match="one of 'knee'"):
        results.pick()


def test_figures_are_figures_and_nothing_is_written(results: routing.Results) -> None:
    before = sorted(path.name for path in results.folder.rglob("*"))
    assert isinstance(results.plot_front(), Figure)
    assert {"front", "hypervolume"} <= set(results.figures())
    assert isinstance(results.plot_knob_curve("threshold"), Figure)
    with pytest.raises(InputError, match=r"which knob\? \(valid: keep_ratio, threshold\)"):
        results.plot_knob_curve()
    with pytest.raises(InputError, match=r"nothing to draw as sensitivity_tempo \(valid: .*sensitivity_threshold"):
        results.plot_knob_curve("tempo")
    with pytest.raises(InputError, match=r"nothing to draw as forest \(valid: front"):
        results.plot_forest()
    assert len(results.plotly_front().data) == 2
    assert sorted(path.name for path in results.folder.rglob("*")) == before


def test_a_point_is_a_model_and_an_export(results: routing.Results) -> None:
    row = results.points[~results.points["is_default"].astype(bool)].iloc[0]
    saved = results.model(row)
    assert saved.model.default_knob_value == pytest.approx(float(row["knob_value"]))
    folder = results.export(row)
    assert (folder / "card.md").is_file()
    assert routing.load(folder).config.evaluation.knob_value == pytest.approx(float(row["knob_value"]))


def test_a_watch_ends_when_nothing_runs(results: routing.Results, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.watch(every=0.01) is results
    assert "3 complete" in capsys.readouterr().out


def test_a_watch_goes_on_while_a_driver_holds_the_folder(
    results: routing.Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before the first trial has begun, and not for a trial that a killed driver has left behind."""
    looks = []
    with ExitStack() as driver:
        driver.enter_context(locked(results.folder))

        def look(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 3:
                driver.close()

        monkeypatch.setattr("time.sleep", look)
        results.watch(every=0.5)
    assert looks == [0.5] * 3
    (results.folder / "trials" / "9").mkdir()
    shutil.copy(results.folder / "trials" / "0" / "config.yaml", results.folder / "trials" / "9")
    for name in ("ledger.journal", "trials.csv", "points.csv"):
        if (results.folder / name).exists():
            os.utime(results.folder / name, (1, 1))
    assert "1 running" in results.watch(every=0.5).words()
    assert looks == [0.5] * 3


def test_one_folder_is_a_path_and_no_letters(results: routing.Results) -> None:
    assert routing.analyze(str(results.folder)).folder == results.folder
    assert (results.folder / "report.html").is_file()
    with pytest.raises(InputError, match="no such results folder"):
        routing.Results(results.folder / "none")


def test_counting_a_run_and_a_module() -> None:
    import torch

    assert routing.count(torch.nn.Linear(3, 4), torch.zeros(2, 3)) == 24
    assert routing.count({"model.name": "cheap_compute"}) < routing.count({"model.name": "full_compute"})
