"""The comparison of searches: tasks that can be checked, every library behind one ask and tell, honest tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routing.objectives import volume_of
from search_spaces.bench.recorded import RECORDED, read_points
from search_spaces.bench.searchers import RIVALS, searcher_of
from search_spaces.bench.searching import BUDGETS, add_missing, main, read_pieces, search, tables
from search_spaces.bench.tasks import TASKS, conditional, zdt


@pytest.mark.parametrize(("name", "best"), [("zdt1", 6.6 - 1 / 3), ("zdt2", 6.6 - 2 / 3)])
def test_the_known_front_has_its_known_hypervolume(name: str, best: float) -> None:
    task = zdt(name)
    others = {f"x{i}": 0.0 for i in range(1, 10)}
    front = [task.measure({"x0": k / 2000, **others}) for k in range(2001)]
    # 1.1 * 6, less the area below the front of [0, 1]
    assert volume_of(front, task.objectives) == pytest.approx(best, abs=2e-3)
    assert task.measure({"x0": 0.5, **others, "x3": 1.0})[1] > task.measure({"x0": 0.5, **others})[1]


def test_the_conditional_task_has_twelve_parameters_and_three_decades_of_cost() -> None:
    task = conditional()
    assert len(task.space.parameters) == 12
    measured = [task.measure(searcher_of("random", task, seed, 1).ask()[1]) for seed in range(200)]
    costs = [cost for _, cost in measured]
    assert max(costs) / min(costs) > 1e3
    assert all(0.1 <= accuracy <= 1 for accuracy, _ in measured)
    setting = searcher_of("random", task, 0, 1).ask()[1]
    assert task.measure(setting) == task.measure(setting)


@pytest.mark.parametrize(("name", "trainings", "families"), [("photographs", 150, 3), ("digits_points", 120, 5)])
def test_a_recording_with_points_counts_all_of_them(name: str, trainings: int, families: int) -> None:
    task = TASKS[name]()
    recorded = read_points(RECORDED / f"{name}.csv", [objective.metric for objective in task.objectives])
    assert len(recorded) >= trainings
    assert len({trial.setting["model.name"] for trial in recorded}) == families
    default, *curve = task.points(task.space.restore(recorded[0].setting))
    assert default == task.measure(task.space.restore(recorded[0].setting))
    assert [cost for _, cost in curve] == sorted(cost for _, cost in curve)
    assert volume_of([default, *curve], task.objectives) >= volume_of([default], task.objectives)
    piece = search("random", task, 0, 20)
    again = searcher_of("random", task, 0, 20)
    settings = [again.ask()[1] for _ in range(20)]
    points = [point for setting in settings for point in task.points(setting)]
    assert piece["volumes"] == {"20": pytest.approx(volume_of(points, task.objectives))}


@pytest.mark.parametrize("name", [*RIVALS, "gp"])
def test_every_library_proposes_settings_of_the_space(name: str) -> None:
    module = {"SMAC3 ParEGO": "smac", "BoTorch qLogNEHVI": "botorch"}.get(name)
    if module is not None:
        pytest.importorskip(module)
    task = conditional()
    searcher = searcher_of(name, task, 1, 12)
    waiting = [searcher.ask()]
    for _ in range(3):
        waiting.append(searcher.ask())
        handle, setting = waiting.pop(0)
        assert setting.keys() == task.space.restore(task.space.labels(setting)).keys()
        searcher.tell(handle, task.measure(setting))


def test_searches_are_added_once_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "pieces.jsonl"
    add_missing(path, ["zdt1"], ["random", "gp"], seeds=2, trials=20)
    pieces = read_pieces(path)
    add_missing(path, ["zdt1"], ["random", "gp"], seeds=2, trials=20)
    assert read_pieces(path) == pieces
    assert [(p["searcher"], p["seed"]) for p in pieces] == [("random", 0), ("gp", 0), ("random", 1), ("gp", 1)]
    with path.open("a") as file:
        file.write('{"task": "zdt1", "sear')  # killed while writing
    assert read_pieces(path) == pieces
    again = search("random", zdt("zdt1"), 0, 20)
    assert again["volumes"] == pieces[0]["volumes"]


def test_a_search_that_is_not_there_is_left_out_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pieces.jsonl"
    monkeypatch.setattr("search_spaces.bench.searchers.find_spec", lambda name: None)
    main([str(path), "--tasks", "zdt1", "--searchers", "SMAC3 ParEGO", "random", "--seeds", "1", "--trials", "20"])
    assert capsys.readouterr().err == "left out, not installed: SMAC3 ParEGO (pip install smac)\n"
    assert [piece["searcher"] for piece in read_pieces(path)] == ["random"]
    with pytest.raises(SystemExit, match="2"):
        main([str(path), "--searchers", "Nonsense"])
    assert "invalid choice: 'Nonsense'" in capsys.readouterr().err


def test_the_table_marks_what_the_best_does_not_surely_beat() -> None:
    def piece(name: str, seed: int, volume: float) -> dict[str, Any]:
        volumes = {str(budget): volume for budget in BUDGETS}
        return {"task": "zdt1", "searcher": name, "seed": seed, "volumes": volumes, "ask": 0.5, "ask_100": 0.25}

    ends = {"auto": [5.0, 6.0, 5.5], "tpe": [4.9, 6.2, 5.3], "random": [4.0, 4.1, 5.6]}
    ends["random"][2] = 4.2
    pieces = [piece(name, seed, volume) for name, found in ends.items() for seed, volume in enumerate(found)]
    (table,) = tables(pieces)
    rows = {row["searcher"]: row for row in table.rows}
    assert [rows[name]["150"] for name in ends] == ["5.5 best", "5.3 =", "4.1"]
    assert [rows[name]["above_150"] for name in ends] == ["3 of 3", "3 of 3", "0 of 3"]
    assert (rows["auto"]["ask"], rows["auto"]["ask_100"], rows["auto"]["n"]) == (0.5, 0.25, 3)
