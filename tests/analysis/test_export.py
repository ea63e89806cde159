"""Exported configs run again, and picks choose what they say."""

from __future__ import annotations

import errno

import pandas as pd
import pytest
import yaml

from analysis.exports.export import export
from analysis.findings.picks import choose
from analysis.findings.summary import summarise
from analysis.read.results import read_results
from routing.cli import main
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.tensors import load_tensors
from routing.files.yaml_io import dump, load_file
from routing.quantities import count


def test_trial_pick_writes_all_three_files(make_results):
    folder = make_results()
    (written,) = export(folder, ["trial=3"])
    assert written == folder / "best" / "trial=3"
    assert RunConfig.from_yaml(written / "config.yaml") == RunConfig.from_yaml(folder / "trials" / "3" / "config.yaml")
    assert load_tensors(written / "model.safetensors")[0]["trial"] == 3
    card = (written / "card.md").read_text()
    assert "attention_routing on digits" in card
    assert "images, on which it was chosen too)" in card


def test_trial_pick_is_the_trials_default_point(make_results):
    summary = summarise(read_results(make_results()))
    assert bool(choose(summary, "trial=4")["is_default"])


def test_best_and_budget(make_results):
    summary = summarise(read_results(make_results()))
    points = summary.results.points
    assert choose(summary, "best")["val_accuracy"] == points["val_accuracy"].max()
    within = points[points["flops"] <= 4e5]
    assert choose(summary, "budget=4e5")["val_accuracy"] == within["val_accuracy"].max()


def test_a_limit_of_any_objective_with_units(make_results):
    summary = summarise(read_results(make_results()))
    points = summary.results.points
    for pick in ("accuracy=0.85", "accuracy=85%", "val_accuracy=0.85"):
        row = choose(summary, pick)
        assert row["val_accuracy"] >= 0.85
        assert row["flops"] == points.loc[points["val_accuracy"] >= 0.85, "flops"].min()
    for pick in ("budget=400k", "flops=0.4M", "budget=4e5"):
        assert choose(summary, pick)["val_accuracy"] == points.loc[points["flops"] <= 4e5, "val_accuracy"].max()


def test_export_says_which_point_it_is_and_the_card_begins_as_the_hub_reads_it(make_results, capsys):
    folder = make_results(weights=False)
    assert main(["export", str(folder), "--pick", "accuracy=85%"]) == 0
    row = choose(summarise(read_results(folder)), "accuracy=85%")
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith(f"accuracy=85%: trial {row['trial']} attention_routing")
    assert f"validation accuracy {row['val_accuracy']:.2%}".replace("%", " %") in said
    assert f"compute {count(row['flops'])}" in said
    matter = yaml.safe_load((folder / "best" / "accuracy=85%" / "card.md").read_text().split("---")[1])
    (result,) = matter["model-index"][0]["results"]
    assert (result["dataset"]["split"], result["metrics"][0]["type"]) == ("validation", "accuracy")
    assert result["metrics"][0]["value"] == pytest.approx(row["val_accuracy"])
    assert "one seed; chosen on this split" in result["metrics"][0]["name"]


def test_knob_of_a_point_that_is_not_the_default(make_results):
    folder = make_results()
    summary = summarise(read_results(folder))
    row = choose(summary, "budget=4e5")
    assert not row["is_default"]
    (written,) = export(folder, ["budget=4e5"])
    config = RunConfig.from_yaml(written / "config.yaml")
    assert config.dotted()["evaluation.knob_value"] == float(row["knob_value"])


def test_without_kept_weights_the_card_says_how_to_get_them(make_results, tmp_path):
    folder = make_results(weights=False)
    (written,) = export(folder, ["trial=0"], tmp_path / "out")
    assert written == tmp_path / "out" / "trial=0"
    assert not (written / "model.safetensors").exists()
    assert "routing train --config config.yaml" in (written / "card.md").read_text()


@pytest.mark.parametrize(
    ("pick", "match"),
    [
        ("nee", "unknown pick 'nee'; did you mean 'knee'"),
        ("budget", "unknown pick 'budget'"),
        ("budget=cheap", "'cheap' is not a number"),
        ("budget=4kk", "'4kk' is not a number"),
        ("accuracy=99%", r"no point has accuracy >= 0.99; the best point has 0\.88"),
        ("acuracy=0.5", "unknown pick 'acuracy=0.5'; did you mean 'accuracy=0.93'"),
        ("budget=10", "no point has flops <= 10; the cheapest"),
        ("trial=400", "trial 400 has no finished point"),
    ],
)
def test_bad_picks(make_results, pick, match):
    folder = make_results()
    with pytest.raises(InputError, match=match):
        export(folder, [pick])
    assert not (folder / "best").exists()


def test_nothing_to_export_yet(make_results):
    with pytest.raises(InputError, match="nothing to export: no trial has finished"):
        export(make_results(trials=0))


def test_only_a_share_of_all_images_gets_the_interval_of_one(make_results):
    folder = make_results(trials=7)
    study, _ = load_file(folder / "study.yaml")
    for name in ("val_accuracy", "val_top5_accuracy", "val_balanced_accuracy"):
        study["objectives"][0]["metric"] = name
        (folder / "study.yaml").write_text(dump(study))
        points = pd.read_csv(folder / "points.csv")
        points.assign(**{name: points["val_accuracy"]}).to_csv(folder / "points.csv", index=False)
        (written,) = export(folder, ["best"])
        assert ("(95 %, one seed;" in (written / "card.md").read_text()) == (name != "val_balanced_accuracy")


def test_damaged_weights_are_refused_and_a_full_disk_leaves_the_export_before(make_results, monkeypatch):
    folder = make_results()
    (written,) = export(folder, ["trial=3"])
    before = {path.name: path.read_bytes() for path in written.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("analysis.exports.export.write_card", full)
        with pytest.raises(OSError, match="No space left"):
            export(folder, ["trial=3"])
    weights = folder / "trials" / "3" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"3/model.safetensors: not a readable safetensors file"):
        export(folder, ["trial=3"])
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before


@pytest.mark.parametrize("value", ["inf", "17.0", "-0.2", "word"])
def test_values_that_no_measurement_has_are_left_out_by_name(make_results, value):
    folder = make_results()
    points = pd.read_csv(folder / "points.csv", dtype=str)
    points.loc[points["trial"] == "3", "val_accuracy"] = value
    points.loc[points["trial"] == "4", "flops"] = "-5"
    points.to_csv(folder / "points.csv", index=False)
    results = read_results(folder)
    assert not {3, 4} & set(results.points["trial"])
    named = " ".join(results.problems)
    assert "trial 3: a point " in named
    assert "trial 4: a point with flops -5 is left out (compute is above 0)" in named
    export(folder, ["best"])


def test_nothing_but_impossible_values_has_no_best_point(make_results):
    folder = make_results()
    points = pd.read_csv(folder / "points.csv").assign(val_accuracy=17.0)
    points.to_csv(folder / "points.csv", index=False)
    with pytest.raises(InputError, match="nothing to export: no trial has finished"):
        export(folder, ["best"])


def test_trial_numbers_that_are_none_are_skipped_and_counted(make_results):
    folder = make_results()
    trials = pd.read_csv(folder / "trials.csv", dtype=str)
    trials["number"] = trials["number"].where(trials["number"] != "3", "1e400")
    trials.to_csv(folder / "trials.csv", index=False)
    assert "trials.csv: 1 row(s) without a trial number skipped" in read_results(folder).problems
