"""``analyze`` on whole, empty and damaged folders."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from PIL import Image

import routing
from analysis.figures.drawing import collected, for_paper, new_figure
from analysis.figures.front import draw_front, front_points
from analysis.findings.series import BLACK, look, looks
from analysis.findings.summary import summarise
from analysis.page.chart_data import page_data
from analysis.page.front_tex import front_tex
from analysis.page.page import _shrunk, pictured_trials
from analysis.read.results import read_results
from analysis.report import analyze
from routing.cli import main
from routing.errors import InputError
from routing.files.yaml_io import dump, load_file


def test_analyze_writes_front_figures_and_report(make_results):
    folder = make_results()
    found = analyze([folder])
    front = pd.read_csv(folder / "front.csv")
    assert front["flops"].is_monotonic_increasing
    assert front["val_accuracy"].is_monotonic_increasing
    assert len(front) == len(found.front) > 3
    assert found.knee is not None
    assert found.knee["flops"] in front["flops"].to_numpy()
    assert found.hypervolume > 0
    assert [path.name for path in found.figures][:2] == ["front.png", "hypervolume.png"]
    assert {"slices.png", "grid_size.png", "parallel.png", "sensitivity_threshold.png"} <= {
        path.name for path in found.figures
    }
    assert all(path.stat().st_size > 5000 for path in found.figures)
    assert found.report.read_text(encoding="utf-8").count("<tr") > len(front)
    assert found.states["FAIL"] == 1


def test_front_holds_no_dominated_point(make_results):
    found = analyze([make_results()])
    points = pd.read_csv(found.folder / "points.csv")
    for _, row in found.front.iterrows():
        better = (points["val_accuracy"] >= row["val_accuracy"]) & (points["flops"] <= row["flops"])
        strictly = (points["val_accuracy"] > row["val_accuracy"]) | (points["flops"] < row["flops"])
        assert not (better & strictly).any()


@pytest.mark.parametrize("formats", [("svg",), ("pdf", "png")])
def test_formats(make_results, formats):
    found = analyze([make_results(trials=7)], formats=formats)
    assert {path.suffix[1:] for path in found.figures} == {*formats, "png"}


def test_a_paper_has_figures_of_its_own_one_column_wide_without_raw_keys(make_results, only_the_front):
    folder = make_results(trials=14, name="my_study")
    page = (analyze(folder).folder / "figures" / "front.png").read_bytes()
    found = analyze(folder, formats=("pdf", "png"), width="single")
    assert (folder / "figures" / "front.png").read_bytes() == page
    assert folder / "paper" / "front.pdf" in found.figures
    pdf = (folder / "paper" / "front.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # fonts are embedded, and as outlines that can be edited
    assert float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf)[1]) == pytest.approx(3.3 * 72)
    with for_paper(), collected() as figures:
        draw_front(summarise(read_results(folder)), ("png",), folder, "single")
    texts = [text.get_text() for text in figures["front"].legends[0].get_texts()]
    assert "full compute" in texts
    assert not any("_" in text for text in texts)
    assert not figures["front"].axes[0].get_title(loc="left")


def test_the_front_is_a_table_of_five_columns_for_a_paper(make_results, only_the_front):
    folder = make_results(trials=14)
    found = analyze(folder)
    lines = (folder / "tables" / "front.tex").read_text().splitlines()
    head = lines.index(r"\midrule") - 1
    assert lines[head] == r"model & router & M multiply-adds & validation accuracy (\%) & \% of full \\"
    assert "not confirmed" in lines[2]
    rows = [line.removesuffix(r" \\").split(" & ") for line in lines if line.count(" & ") == 4][1:]
    points = found.front[["flops", "val_accuracy"]].to_numpy().tolist()
    assert [[float(row[2]), float(row[3])] for row in rows][: len(points)] == [
        [pytest.approx(flops / 1e6, abs=6e-4), pytest.approx(100 * accuracy, abs=6e-3)] for flops, accuracy in points
    ]
    assert [row[0] for row in rows if row[4] == "100"] == ["full compute"]


def test_a_confirmation_without_a_row_of_both_means_has_no_table_for_a_paper(make_results):
    summary = summarise(read_results(make_results(trials=7)))
    means = {"val_accuracy_mean": [0.9, None], "test_accuracy_mean": [0.9, None], "flops_mean": [None, 1e6]}
    assert front_tex(summary, pd.DataFrame({"trial": [0, 1], "n": [3, 3], **means})) is None


def test_unknown_format(make_results):
    with pytest.raises(InputError, match=r"'jpeg'.*valid: png, svg, pdf"):
        analyze([make_results(trials=7)], formats=("jpeg",))


def test_nothing_finished_yet(make_results):
    folder = make_results(trials=0)
    found = analyze([folder])
    assert found.knee is None
    assert len(found.front) == 0
    assert "no front yet" in found.report.read_text(encoding="utf-8")


def test_one_point(make_results):
    found = analyze([make_results(trials=1, unfinished=False)])
    assert len(found.front) == 1


def test_study_name_is_escaped(make_results):
    found = analyze([make_results(trials=7, name="<script>alert(1)</script> $x_$")])
    text = found.report.read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_several_folders(make_results):
    first, second = make_results("a", trials=7), make_results("b", trials=7, seed=1)
    found = analyze([first, second])
    assert [found.folder, *(other.folder for other in found.others)] == [first, second]
    assert (second / "report.html").exists()


def test_tables_show_every_objective_and_every_metric(make_results, capsys, only_the_front):
    """Also a metric of a plugin that is not imported here."""
    folder = make_results(trials=7)
    points = pd.read_csv(folder / "points.csv")
    points.assign(val_top5_accuracy=0.9 + points["val_accuracy"] / 20, val_of_a_plugin=0.25).to_csv(
        folder / "points.csv", index=False
    )
    study = (folder / "study.yaml").read_text().replace("metric: val_accuracy", "metric: val_top5_accuracy")
    (folder / "study.yaml").write_text(study)
    assert main(["analyze", str(folder)]) == 0
    front = capsys.readouterr().out.split("Front of")[1]
    for heading in ("val top-5 accuracy", "val accuracy", "val of a plugin", "multiply-adds", "multiply-adds p95"):
        assert heading in front
    page = (folder / "report.html").read_text(encoding="utf-8")
    for heading in ("validation top-5 accuracy (%)", "validation accuracy (%)", "val of a plugin"):
        assert f"{heading}</th>" in page
    assert {"val_top5_accuracy", "val_of_a_plugin"} <= set(pd.read_csv(folder / "front.csv"))


def test_a_front_worse_than_the_reference_says_what_its_hypervolume_means(make_results, capsys, only_the_front):
    folder = make_results(trials=7)
    study = (folder / "study.yaml").read_text()
    assert "The hypervolume is 0" not in analyze([folder]).report.read_text()
    (folder / "study.yaml").write_text(study.replace("reference: 0.1", "reference: 0.99"))
    assert main(["analyze", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "hypervolume: 0 (log10 of multiply-adds; 0 on a linear scale, as earlier" in said
    assert "(no point is better than the study's reference)" in said
    assert "The hypervolume is 0: no point is better than" in (folder / "report.html").read_text()


def test_points_that_break_a_constraint_are_not_on_the_front(make_results, only_the_front):
    folder = make_results(trials=7)
    study = load_file(folder / "study.yaml")[0]
    before = analyze([folder])
    (folder / "study.yaml").write_text(dump({**study, "constraints": ["val_accuracy >= 0.8", "flops <= 1.0e6"]}))
    found = analyze([folder])
    allowed = before.front[(before.front["val_accuracy"] >= 0.8) & (before.front["flops"] <= 1e6)]
    assert 0 < len(found.front) == len(allowed) < len(before.front)
    assert found.hypervolume < before.hypervolume
    assert any("break a constraint (val_accuracy >= 0.8, flops <= 1.0e6)" in line for line in found.problems)
    assert len(read_results(folder).points) == len(pd.read_csv(folder / "points.csv"))


def test_every_hypervolume_says_its_scale(make_results, only_the_front):
    folder = make_results(trials=7)
    older, page = analyze([folder]), folder / "report.html"
    assert older.hypervolume < 2  # decades of compute times accuracy
    assert float(older.scale.split("; ")[1].split(" on a linear scale")[0]) > 1e5
    assert "on a linear scale, as earlier reports of this folder have it" in page.read_text()
    study = load_file(folder / "study.yaml")[0]
    for scale, words in (("log", "log10 of multiply-adds"), ("linear", "linear")):
        study["objectives"][1]["scale"] = scale
        study["objectives"][0]["scale"] = "linear"
        (folder / "study.yaml").write_text(dump(study))
        found = analyze([folder])
        assert found.scale == words
        assert f"{words}; against" in page.read_text()
        assert (found.hypervolume < 2) is (scale == "log")


@pytest.mark.parametrize(("trials", "code"), [(0, 1), (7, 0)])
def test_a_sweep_without_a_finished_trial_has_failed(make_results, monkeypatch, capsys, only_the_front, trials, code):
    folder = make_results(trials=trials)
    monkeypatch.setattr("search_spaces.sweep", lambda *_, **__: folder)
    assert main(["sweep", "digits", "--out", str(folder)]) == code
    assert ("no trial has finished; why not: `routing show " in capsys.readouterr().err) == bool(code)
    assert (folder / "report.html").is_file()


def test_a_sweep_that_is_still_running(make_results, only_the_front):
    """A trial that has just started is in no table yet, one that has just finished in one of them; both have lists."""
    folder = make_results(unfinished=False)
    for name, key, gone in (("trials.csv", "number", [20]), ("points.csv", "trial", [19, 20])):
        table = pd.read_csv(folder / name)
        table[~table[key].isin(gone)].to_csv(folder / name, index=False)
    (folder / "trials" / "20" / "metrics.json").unlink()
    found = analyze([folder])
    assert found.states == {"COMPLETE": 20, "RUNNING": 1}
    table = read_results(folder).trials
    assert set(table["model.experts.big"]) == {"[128, 128]"}


def test_three_objectives_have_a_front_that_can_be_seen(make_results):
    folder = make_results()
    assert front_line(folder) == ("-", "None")
    study, _ = load_file(folder / "study.yaml")
    study["objectives"].append({"metric": "params", "goal": "minimize", "reference": 1e6})
    (folder / "study.yaml").write_text(dump(study))
    assert front_line(folder) == ("None", "o")  # its points are in no row


def test_axes_have_the_scales_that_objectives_declare(make_results):
    folder = make_results()
    study, _ = load_file(folder / "study.yaml")
    for objective, declared in zip(study["objectives"], ("log", "linear"), strict=True):
        objective["scale"] = declared
    (folder / "study.yaml").write_text(dump(study))
    axes = new_figure(4, 3).add_subplot()
    front_points(axes, summarise(read_results(folder)))
    assert (axes.get_yscale(), axes.get_xscale()) == ("log", "linear")
    assert axes.get_ylabel().endswith(", log scale")
    layout = routing.Results(folder).plotly_front().layout
    assert (layout.yaxis.type, layout.xaxis.type) == ("log", "linear")


def front_line(folder):
    """Return line style and marker of the front in its figure."""
    axes = new_figure(4, 3).add_subplot()
    front_points(axes, summarise(read_results(folder)))
    (line,) = (line for line in axes.lines if str(line.get_label()).startswith("front ("))
    return line.get_linestyle(), line.get_marker()


def test_a_study_of_costs_alone_is_drawn(make_results):
    folder = make_results()
    study, _ = load_file(folder / "study.yaml")
    costs = [("flops", 2e6), ("params", 1e6)]
    study["objectives"] = [{"metric": name, "goal": "minimize", "reference": limit} for name, limit in costs]
    (folder / "study.yaml").write_text(dump(study))
    found = analyze([folder])
    assert "grid_size.png" in {path.name for path in found.figures}
    assert found.front["params"].is_monotonic_increasing


def test_every_measured_column_can_be_an_axis(make_results):
    folder = make_results(trials=7)
    for name in ("points.csv", "trials.csv"):
        table = pd.read_csv(folder / name)
        table.assign(val_worst_class_accuracy=0.5, note="text").to_csv(folder / name, index=False)
    data = page_data(summarise(read_results(folder)))
    names = [axis["name"] for axis in data["axes"]]
    assert names[:2] == ["val_accuracy", "flops"]
    assert "val_worst_class_accuracy" in names
    assert not {"note", "trial", "seed", "is_default", "knob_value", "dataset.patch_grid_size"} & set(names)
    assert "val_worst_class_accuracy" in {column["name"] for column in data["table"]}


def test_inference_time_is_an_axis_at_the_default_setting_of_the_knob(make_results):
    results = read_results(make_results(unfinished=False))
    results.trials["ms_per_image"] = results.trials["number"] / 100
    data = page_data(summarise(results))
    assert "ms_per_image" in {axis["name"] for axis in data["axes"]}
    points = data["points"]
    shown = zip(points["trial"], points["is_default"], points["values"]["ms_per_image"], strict=True)
    assert all(value == (trial / 100 if default else None) for trial, default, value in shown)
    assert "ms_per_image" in {column["name"] for column in data["table"]}


def test_models_of_the_front_are_drawn_once_for_the_page(make_results, only_the_front):
    folder = make_results(unfinished=False)
    summary = summarise(read_results(folder))
    first = pictured_trials(summary)[:2]
    assert first == [folder / "trials" / str(row["trial"]) for row in (summary.knee_row, summary.best_row)]
    assert len(set(first)) == 2
    drawn = []

    def draw(trial):
        drawn.append(trial)
        (trial / "figures").mkdir()
        Image.new("RGB", (4, 4)).save(trial / "figures" / "attention_heatmap.png")

    weights = [trial / "model.safetensors" for trial in first]
    for path in weights:
        path.rename(path.with_suffix(".gone"))
    analyze([folder], draw_model=draw)
    assert drawn == []  # without weights there is nothing to draw
    for path in weights:
        path.with_suffix(".gone").rename(path)
    for _ in range(2):
        page = analyze([folder], draw_model=draw).report.read_text()
    assert drawn == first
    assert f"trial {first[0].name}: attention heatmap" in page


def test_no_two_series_look_alike():
    assert len({look(index) for index in range(49)}) == 49
    assert [look(index).colour for index in range(7)] == [look(index).colour for index in range(7, 14)]
    styles = looks(["a", "full_compute", "b", "c", "d", "e", "f"])
    assert len(set(styles.values())) == 7
    dense = {"arm 1": "conv_net", "arm 2": "conv_net", "arm 3": "full_conv", "full_compute": "full_compute"}
    styles = looks(["arm 1", "routed", "arm 2", "arm 3", "full_compute"], dense)
    assert len(set(styles.values())) == 5
    assert [name for name in styles if styles[name].colour == BLACK] == list(dense)


def test_a_picture_that_would_fill_the_memory_is_left_out(tmp_path, monkeypatch):
    Image.new("RGB", (2000, 2000)).save(tmp_path / "bomb.png")
    assert _shrunk(tmp_path / "bomb.png")
    for most in (3_000_000, 1_000_000):  # PIL warns above its limit, and refuses above twice that
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", most)
        assert _shrunk(tmp_path / "bomb.png") is None
