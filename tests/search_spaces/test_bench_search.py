"""The benchmark of the search: its curve by hand, and what each way leaves behind."""

from __future__ import annotations

import json
import math
import pickle
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial
from small_studies import sweep_values

from routing.config.run import RunConfig
from routing.runner import run
from search_spaces.bench import plain_search
from search_spaces.bench import search_value as bench
from search_spaces.study.load import load_study, parse_study
from search_spaces.study.space import Space

OBJECTIVES = parse_study(sweep_values()).objectives  # reference (0, 2e6)
TWICE = math.log10(2)
"""Decades of a cost of 1e6 below the reference."""
TINY = {"dataset.num_train": 32, "dataset.num_val": 16, "dataset.num_test": 16, "training.num_epochs": 1}


def test_the_curve_counts_every_point_when_its_training_ended() -> None:
    notes = [
        {"ended": 9.0, "points": [[1.0, 1.0e6]]},
        {"ended": 4.0, "points": [[0.5, 1.0e6], [0.25, 0.5e6], [0.2, 1.9e6]]},
    ]
    steps = bench.curve(notes, OBJECTIVES)
    first = 0.25 * 2 * TWICE + 0.25 * TWICE
    assert steps.spent == [4.0, 9.0]
    assert steps.volumes == pytest.approx([first, 0.25 * TWICE + TWICE])
    assert steps.at(3.9) == 0
    assert steps.at(8) == pytest.approx(first)
    assert steps.reaching(first) == 4
    assert steps.reaching(first + 1e-3) == 9
    assert steps.reaching(2) is None


def test_ways_take_turns_and_each_training_is_timed_from_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def way(name: str) -> Any:
        def run_it(folder: Path, trials: int, seed: int) -> None:
            ran.append(f"{name}{seed}")
            note = {"ended": time.time() + trials, "points": [[0.5, 1.0e6]]}
            (folder / "1.json").write_text(json.dumps(note))

        return run_it

    monkeypatch.setattr(bench, "WAYS", {name: way(name) for name in (bench.OURS, bench.RAY)})
    found = bench.search(7, range(2))
    assert ran == [bench.OURS + "0", bench.RAY + "0", bench.RAY + "1", bench.OURS + "1"]
    assert [note["ended"] for (note,) in found[bench.RAY]] == pytest.approx([7, 7], abs=0.5)


def note(ended: float, *points: list[float]) -> dict[str, Any]:
    return {"ended": ended, "points": list(points)}


def test_ways_are_compared_under_the_same_seed() -> None:
    """Plain Ray ends after 30 s, under the last seed after 60; ours is there after 2, 4, 20 and 24 s, or never."""
    reached, rays = [2.0, 4.0, 20.0, 24.0], [30.0, 30.0, 30.0, 60.0]
    better, worse = [0.5, 1.0e6], [0.25, 1.0e6]
    runs = {
        bench.OURS: [[note(1, worse), note(at, better, worse)] for at in reached],
        bench.RAY: [[note(end / 2, worse), note(end, better)] for end in rays],
    }
    ours, plain = bench.compare(runs, OBJECTIVES)
    assert ours["reached"] == 12
    assert ours["share"] == pytest.approx((4 / 30 + 24 / 60) / 2)
    assert ours["worst"] == pytest.approx(20 / 30)
    assert (plain["reached"], plain["share"], plain["worst"]) == (30, 1, 1)
    assert (ours["trainings"], ours["points"], ours["seconds"], ours["n"]) == (2, 3, 12, 4)
    assert ours["hypervolume"] == plain["hypervolume"] == pytest.approx(0.5 * TWICE)
    assert ours["third"] == pytest.approx((0.5 + 0.25) * TWICE / 2)  # 10, 10, 10 and 20 s: reached, reached, not, not
    assert plain["third"] == 0

    runs[bench.OURS][2:] = [[note(1, worse)], [note(1, worse)]]
    ours, _ = bench.compare(runs, OBJECTIVES)
    assert ours["reached"] == ours["share"] == ours["worst"] == "not reached"


def test_a_limit_counts_what_had_ended_by_then() -> None:
    better, worse = [0.5, 1.0e6], [0.25, 1.0e6]
    runs = {
        bench.OURS: [[note(5, worse), note(21, better)]],
        bench.RAY: [[note(16, worse), note(40, better)]],
    }
    ours, plain = bench.compare(runs, OBJECTIVES, limit=20)
    assert (ours["trainings"], ours["seconds"], ours["reached"], ours["share"]) == (1, 5, 5, 5 / 20)
    assert (plain["reached"], plain["share"]) == (16, 16 / 20)
    assert (ours["third"], plain["third"]) == (pytest.approx(0.25 * TWICE), 0)


def test_the_scripts_train_the_default_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(plain_search.STUDY)
    space = Space(study.space, {**study.base, **TINY, "evaluation.operating_points": False})  # type: ignore[union-attr]
    assert set(plain_search.space_of_study().parameters) == set(space.parameters)
    monkeypatch.setattr(plain_search, "space_of_study", lambda: space)
    plain_search.with_optuna(str(tmp_path), plain_search.WORKERS, 0)
    suggest = pickle.loads(pickle.dumps(partial(plain_search.define_by_run, "folder")))  # as OptunaSearch keeps it
    assert suggest(FixedTrial({"model.name": "full_compute", "dataset.patch_grid_size": 4})) == {"folder": "folder"}
    told: list[dict[str, float]] = []
    monkeypatch.setattr("ray.tune.report", told.append)
    plain_search.trainable({"folder": str(tmp_path), "model.name": "full_compute", "dataset.patch_grid_size": 4})
    notes = sorted(bench.notes(tmp_path), key=lambda note: note["ended"])
    assert len(notes) == 2
    assert notes[-1]["points"] == [[told[0]["val_accuracy"], told[0]["flops"]]]


def test_ours_counts_its_operating_points(tmp_path: Path) -> None:
    record = run(RunConfig.from_dict({**TINY, "model.router.mode": "top_k"}), out=tmp_path / "results/trials/0")
    (note,) = bench.notes(tmp_path)
    assert len(note["points"]) == len(record.points) > 2
    assert note["points"][0] == [record.points[0].metrics["val_accuracy"], record.points[0].flops]


def test_the_scripts_begin_with_what_the_study_runs_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, space = load_study(plain_search.STUDY), plain_search.space_of_study()
    wanted = [space.labels(setting) for setting in study.enqueue]  # type: ignore[union-attr]
    assert plain_search.first_settings() == wanted != []
    monkeypatch.setattr(bench, "fresh_process", lambda *words: None)
    monkeypatch.setattr(bench, "wait", lambda *processes: None)
    bench._plain_optuna(tmp_path, 2, 0)
    queued = bench.shared_study(str(tmp_path)).get_trials()
    assert [trial.system_attrs["fixed_params"] for trial in queued] == wanted
    asked = [bench.shared_study(str(tmp_path)).ask() for _ in wanted]
    for trial in asked:
        space.sample(trial)
    assert [trial.params for trial in asked] == wanted
