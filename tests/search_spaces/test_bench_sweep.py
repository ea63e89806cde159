"""The benchmark of sweeps: figures from notes by hand; every way runs all trials."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from routing.errors import RoutingError
from search_spaces.bench import utilisation as bench
from search_spaces.bench.workload import Workload, note

TINY = Workload("no", epochs=1, trials=2)


def test_figures_by_hand() -> None:
    notes = [
        {"started": 10.0, "ended": 13.0, "train_seconds": 2.5},
        {"started": 11.0, "ended": 14.0, "train_seconds": 2.0},
        {"started": 13.0, "ended": 15.0, "train_seconds": 1.5},
    ]
    found = bench.figures(notes, wall=9.0)
    assert found == {
        "wall_seconds": 9.0,
        "after_start_seconds": 5.0,
        "utilisation": pytest.approx(6 / 10),
        "inside_trials": pytest.approx(8 / 10),
    }


def test_rows_are_medians_and_ratios_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    seconds = {"ours": iter([2.0, 4.0, 10.0]), "other": iter([6.0, 8.0, 10.0])}

    def way(name: str) -> None:
        def run(folder: Path, workload: Workload) -> None:
            ran.append(name)
            note(folder, started=0.0, train_seconds=1.0)

        return run  # type: ignore[return-value]

    monkeypatch.setattr(bench, "WAYS", {name: way(name) for name in seconds})
    drawn = SimpleNamespace(dataset=SimpleNamespace(load=lambda: None))
    monkeypatch.setattr(bench, "config_of", lambda *_: drawn)
    monkeypatch.setattr(
        bench,
        "figures",
        lambda notes, wall: dict.fromkeys(("wall_seconds", "after_start_seconds"), next(seconds[ran[-1]])),
    )
    ours, other = bench.compare(TINY, ["ours", "other"], rounds=3)
    assert ran == ["ours", "other", "other", "ours", "ours", "other"]
    assert (ours["wall_seconds"], other["wall_seconds"]) == (4, 8)
    assert other["ours_is_faster"] == 2  # 6 / 2, 8 / 4, 10 / 10
    assert ours["ours_is_faster"] == 1


def test_a_way_that_fails_says_why() -> None:
    with pytest.raises(RoutingError, match="no such thing"):
        bench.wait(bench.fresh_process("-c", "raise SystemExit('no such thing')"))


@pytest.mark.slow
@pytest.mark.parametrize("way", list(bench.WAYS))
def test_every_way_runs_all_trials(way: str, tmp_path: Path) -> None:
    before, folder = time.time(), tmp_path
    try:
        bench.WAYS[way](folder, TINY)
    except RoutingError:
        if "Ray Tune" not in way:
            raise
        folder = tmp_path / "again"  # Ray may lose a worker on a crowded machine, and by default nothing is tried again
        folder.mkdir()
        bench.WAYS[way](folder, TINY)
    notes = bench.notes(folder)
    assert len(notes) == TINY.trials
    for one in notes:
        assert 0 < one["train_seconds"] < one["ended"] - one["started"]
        assert before < one["started"] < one["ended"] < time.time()
