"""Reading results folders: whole, growing and damaged ones."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.findings.picks import choose
from analysis.findings.summary import summarise
from analysis.read.results import read_results
from analysis.report import analyze
from routing.errors import InputError


def test_whole_folder(make_results):
    results = read_results(make_results())
    assert results.name == "synthetic"
    assert results.kind == "sweep"
    assert results.trials["state"].value_counts().to_dict() == {
        "COMPLETE": 21, "PRUNED": 1, "FAIL": 1, "RUNNING": 1, "WAITING": 1,
    }  # fmt: skip
    assert len(results.points) == 9 + 12 * 8
    assert results.problems == []
    assert results.environment["device"] == "cpu"


def test_trial_folders_alone_give_the_same_points(make_results):
    folder = make_results(unfinished=False)
    listed = read_results(folder)
    (folder / "trials.csv").unlink()
    (folder / "points.csv").unlink()
    alone = read_results(folder)
    assert len(alone.problems) == 2
    assert alone.trials["state"].eq("COMPLETE").all()
    columns = ["trial", "val_accuracy", "flops", "model.name"]
    assert alone.points[columns].to_numpy().tolist() == listed.points[columns].to_numpy().tolist()


def test_trial_finished_after_the_tables_were_written(make_results):
    folder = make_results(unfinished=False)
    for name in ("trials.csv", "points.csv"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        column = 0
        kept = [lines[0]] + [line for line in lines[1:] if line.split(",")[column] != "20"]
        (folder / name).write_text("".join(kept))
    results = read_results(folder)
    assert 20 in set(results.trials["number"])
    assert 20 in set(results.points["trial"])


def test_a_failed_trial_has_no_point_whatever_its_folder_holds(make_results):
    folder = make_results(unfinished=False)
    before = read_results(folder)
    for name, number in (("trials.csv", 0), ("points.csv", 0)):
        lines = (folder / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines if name == "trials.csv" or not line.startswith(f"{number},")]
        (folder / name).write_text("".join(kept).replace(f"{number},COMPLETE", f"{number},FAIL", 1))
    after = read_results(folder)
    assert after.trials.loc[after.trials["number"] == 0, "state"].item() == "FAIL"
    assert set(before.points["trial"]) - set(after.points["trial"]) == {0}


def test_a_trial_listed_twice_counts_once(make_results):
    folder = make_results(unfinished=False)
    path = folder / "trials.csv"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[3])
    results = read_results(folder)
    assert results.trials["number"].is_unique
    assert results.problems == ["trials.csv: 1 further row(s) of a trial listed already skipped"]


def test_running_trial_without_metrics(make_results):
    folder = make_results(unfinished=False)
    (folder / "trials" / "99").mkdir()
    results = read_results(folder)
    assert results.trials.set_index("number").loc[99, "state"] == "RUNNING"
    assert any("trial 99" in line for line in results.problems)


def test_corrupt_trials_are_named_not_fatal(make_results):
    folder = make_results()
    (folder / "trials" / "3" / "metrics.json").write_text('{"metrics": ')
    (folder / "trials" / "5" / "metrics.json").unlink()
    results = read_results(folder)
    assert [line.split(":")[0] for line in results.problems] == ["trial 3", "trial 5"]


@pytest.mark.parametrize("name", ["trials.csv", "points.csv", "study.yaml", "environment.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"[1, 2", b"number,trial\n1,2,3,4\n", b"[" * 200_000])
def test_no_file_can_break_the_reader(make_results, name, content):
    folder = make_results(trials=7)
    (folder / name).write_bytes(content)
    results = read_results(folder)
    assert any(name in line for line in results.problems)
    assert set(range(7)) <= set(results.trials["number"])
    assert len(results.points) == 3 + 4 * 8


def test_truncated_row_is_left_out(make_results):
    folder = make_results(trials=7)
    text = (folder / "points.csv").read_text()
    (folder / "points.csv").write_text(text[: text.rindex("\n", 0, -1) + 8])
    results = read_results(folder)
    assert len(results.points) == 3 + 4 * 8 - 1


@pytest.mark.parametrize("column", ["val_accuracy", "flops", "params", "routing_ratio", "seed"])
def test_a_damaged_cell_costs_its_point_only(make_results, only_the_front, column):
    folder = make_results(trials=7)
    points = pd.read_csv(folder / "points.csv", dtype=str)
    points.loc[3, column] = "x"
    points.to_csv(folder / "points.csv", index=False)
    found = analyze([folder])
    assert len(read_results(folder).points) == 3 + 4 * 8 - (column in ("val_accuracy", "flops"))
    assert "x" not in found.front[column].tolist() or column == "seed"
    assert choose(summarise(read_results(folder)), "budget=4e5")["flops"] <= 4e5


def test_a_second_header_in_the_middle_of_a_table(make_results, only_the_front):
    folder = make_results(trials=7)
    text = (folder / "points.csv").read_text()
    (folder / "points.csv").write_text(text + text)
    assert analyze([folder]).knee is not None


def test_point_without_an_objective_is_left_out_and_named(make_results):
    folder = make_results(trials=7)
    lines = (folder / "points.csv").read_text().splitlines()
    column = lines[0].split(",").index("val_accuracy")
    cells = lines[1].split(",")
    cells[column] = ""
    (folder / "points.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    results = read_results(folder)
    assert results.problems == ["trial 0: a point without val_accuracy or flops is left out"]
    assert not results.points["trial"].eq(0).any()


def test_not_a_results_folder(tmp_path):
    with pytest.raises(InputError, match="no such results folder"):
        read_results(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a results folder"):
        read_results(tmp_path)
