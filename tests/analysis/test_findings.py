"""Boundaries, importance, certificates, confirmed points, effects, tables."""

from __future__ import annotations

import json
import math
import shlex

import numpy as np
import optuna
import pandas as pd
import pytest

from analysis.exports.export import export
from analysis.findings.boundaries import boundary_warnings
from analysis.findings.certificates import certificate_table
from analysis.findings.confirmed import confirm_table, error_bars, read_confirmed
from analysis.findings.dense_match import _cheapest_as_good
from analysis.findings.effects import finished, knob_curves, level_means, parallel_axes, slice_keys
from analysis.findings.importance import importances, split_estimated
from analysis.findings.summary import summarise
from analysis.page.headline import cards, headline, progress
from analysis.page.tables import commands, importance_table
from analysis.read.configs import as_searched, searched_keys, varied_keys, yaml_value
from analysis.read.results import read_results
from analysis.report import analyze
from analysis.words.tables import Column, latex, table, to_latex, to_markdown
from routing.files.yaml_io import dump, load_file

pytestmark = pytest.mark.usefixtures("only_the_front")  # what is tested stands in tables and pages


def with_space(folder, space):
    study = load_file(folder / "study.yaml")[0]
    (folder / "study.yaml").write_text(dump({**study, "space": space}))
    return folder


def test_front_at_the_edge_of_a_range_is_warned_of(make_results):
    folder = with_space(
        make_results(),
        {
            "dataset.patch_grid_size": {"int": [4, 40]},
            "model.router.temperature": {"float": [1e-4, 1e4], "log": True},
            "model.router.mode": {"choice": ["top_k", "random"]},
        },
    )
    (line,) = boundary_warnings(summarise(read_results(folder)))
    assert "lower edge of dataset.patch_grid_size (4)" in line


CONDITIONAL = {
    "model.name": {"choice": ["attention_routing", "full_compute"]},
    "model.router.mode": {"choice": ["learnable_threshold", "top_k"], "when": {"model.name": ["attention_routing"]}},
    "model.router.temperature": {"float": [0.1, 3.0], "when": {"model.router.mode": ["learnable_threshold"]}},
}


def test_what_a_trial_did_not_search_is_no_value_of_it(make_results):
    results = read_results(with_space(make_results(), CONDITIONAL))
    seen = as_searched(finished(results), results.study)
    modes = seen["model.router.mode"]
    assert seen["model.name"].notna().all()
    assert modes.notna().equals(seen["model.name"] == "attention_routing")
    assert seen["model.router.temperature"].notna().equals(modes == "learnable_threshold")
    assert seen["dataset.patch_grid_size"].notna().all()  # not searched here
    routers = as_searched(finished(results), results.study, "model.router.")
    assert routers["model.router.mode"].equals(modes)
    keys = slice_keys(seen, searched_keys(results.study))
    assert set(keys[:3]) == set(CONDITIONAL)
    assert "dataset.patch_grid_size" in keys[3:]


def test_defaults_nobody_searched_lie_at_no_edge(make_results):
    folder = make_results()
    points = pd.read_csv(folder / "points.csv").assign(**{"model.router.threshold_jitter": 0.0})
    points.to_csv(folder / "points.csv", index=False)
    jitter = {"float": [0.0, 1.0]}
    for when, lines in (({}, 1), ({"when": {"model.router.mode": ["gumbel"]}}, 0)):
        mode = {"choice": ["gumbel", "top_k"]}
        space = {"model.router.mode": mode, "model.router.threshold_jitter": {**jitter, **when}}
        assert len(boundary_warnings(summarise(read_results(with_space(folder, space))))) == lines


def test_an_ablation_has_no_importance(make_ablation):
    folder = make_ablation(seeds=10)
    write_ledger(folder, 30)
    assert importances(read_results(folder)).empty


@pytest.mark.parametrize("space", [None, "x", {"a": 1}, {"seed": {"float": [1]}}, {"seed": {"float": ["a", "b"]}}])
def test_undeclared_or_unreadable_ranges_warn_of_nothing(make_results, space):
    assert boundary_warnings(summarise(read_results(with_space(make_results(trials=7), space)))) == []


def write_ledger(folder, trials):
    """A ledger whose first objective depends on ``good`` alone."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "ledger.journal")))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(
        lambda trial: (trial.suggest_float("good", 0, 1), trial.suggest_float("noise", 0, 1)), n_trials=trials
    )


def test_importance_finds_the_parameter_that_matters(make_results):
    folder = make_results(trials=25)
    write_ledger(folder, 40)
    found = importances(read_results(folder)).set_index("parameter")
    assert found.loc["good", "val_accuracy"] > 0.8
    assert found.loc["noise", "flops"] > 0.8
    report = analyze([folder]).report.read_text()
    assert "It is not an ablation" in report


def write_conditional_ledger(folder, trials, warm):
    """``depth`` exists where ``kind`` is b; ``warm`` further trials of a warm start, in which ``noise`` decides."""
    write_ledger(folder, 0)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "ledger.journal")))
    study = optuna.load_study(study_name=None, storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial):
        good, noise = trial.suggest_float("good", 0, 1), trial.suggest_float("noise", 0, 1)
        if trial.suggest_categorical("kind", ["a", "b"]) == "b":
            trial.suggest_int("depth", 1, 9)
        if trial.number >= trials:
            trial.set_user_attr("warm_start", "elsewhere trial 0")
        return (good if trial.number < trials else 100 * noise), noise

    study.optimize(objective, n_trials=trials + warm)


def test_importance_names_conditional_parameters_as_left_out(make_results):
    folder = make_results(trials=25)
    write_conditional_ledger(folder, 40, 0)
    found = importances(read_results(folder))
    assert set(found["parameter"][:3]) == {"good", "noise", "kind"}
    assert found["parameter"].iloc[3] == "depth"
    assert found.iloc[3, 1:].isna().all()
    assert split_estimated(found)[1] == ["depth"]
    shown = importance_table(found)
    assert shown is not None
    assert len(shown.rows) == 3
    assert "only some trials have them: depth." in shown.note
    assert "importance.png" in {path.name for path in analyze([folder]).figures}


def test_importance_leaves_trials_of_a_warm_start_out(make_results):
    folder = make_results(trials=25)
    write_conditional_ledger(folder, 30, 60)
    found = importances(read_results(folder)).set_index("parameter")
    assert found.loc["good", "val_accuracy"] > 0.8
    (folder / "ledger.journal").unlink()
    write_conditional_ledger(folder, 10, 60)
    assert importances(read_results(folder)).empty


def test_trials_of_a_warm_start_are_not_finished_ones(make_results):
    folder = make_results(trials=7)
    trials = pd.read_csv(folder / "trials.csv")
    taken = trials[:2].assign(number=[90, 91], state=["WARM_START", "COMPLETE"], reason="warm start: other")
    pd.concat([trials, taken]).to_csv(folder / "trials.csv", index=False)
    summary = summarise(read_results(folder))
    assert summary.states["COMPLETE"] == 7
    assert "WARM_START" not in summary.states
    assert progress(summary).startswith(
        "Trials: 7 complete, 1 stopped early, 1 failed, 1 running, 1 waiting, 2 taken over."
    )


def test_no_importance_from_few_trials_or_a_damaged_ledger(make_results):
    folder = make_results(trials=25)
    assert importances(read_results(folder)).empty
    write_ledger(folder, 5)
    assert importances(read_results(folder)).empty
    (folder / "ledger.journal").write_text("garbage\n")
    results = read_results(folder)
    assert importances(results).empty
    assert "no importance" in results.problems[-1]


def test_certificates_of_the_front(make_results):
    folder = make_results()
    summary = summarise(read_results(folder))
    number = next(n for n in summary.front["trial"] if (folder / f"trials/{n}/metrics.json").exists())
    path = next(folder / f"trials/{n}/metrics.json" for n in summary.front["trial"] if n % 7 >= 3)
    content = json.loads(path.read_text())
    content["certificate"]["state"] = "anti"
    path.write_text(json.dumps(content))
    shown = certificate_table(summary)
    assert any("picks the wrong patches" in row.cells[2] for row in shown.rows)
    assert "All routers: 12 healthy." in shown.note
    (folder / f"trials/{number}/metrics.json").write_text("{")
    assert len(certificate_table(summary).rows) <= len(shown.rows)


CONFIRM = pd.DataFrame(
    {
        "trial": [3, 4],
        "knob": ["threshold", "threshold"],
        "knob_value": [0.92, 0.5],
        "is_default": [False, True],
        "n": [5, 5],
        "flops_mean": [3e5, 4e5],
        "val_accuracy_mean": [0.86, 0.88],
        "val_accuracy_low": [0.85, 0.87],
        "val_accuracy_high": [0.87, 0.89],
        "test_accuracy_mean": [0.85, 0.87],
        "test_accuracy_low": [0.84, 0.86],
        "test_accuracy_high": [0.86, math.nan],
        "selected_val_accuracy": [0.88, 0.90],
        "winners_curse": [0.03, 0.03],
    }
)


def test_confirmed_points(make_results):
    folder = make_results()
    assert read_confirmed(read_results(folder)).empty
    (folder / "confirm").mkdir()
    CONFIRM.to_csv(folder / "confirm" / "confirm.csv", index=False)
    results = read_results(folder)
    confirmed = read_confirmed(results)
    bars = error_bars(confirmed, results)
    assert bars["y"].tolist() == [0.85, 0.87]
    assert bars["y_high"].tolist() == [0.86, 0.87]
    assert "test accuracy" in bars["label"].iloc[0]
    shown = confirm_table(confirmed, results)
    assert shown is not None
    assert "85.00 [84.00, 86.00]" in shown.rows[0].cells
    assert [column.label for column in shown.columns][-2:] == ["selected validation accuracy (%)", "winner's curse"]
    assert shown.rows[0].cells[-2:] == ("88.00", "3.00")
    (written,) = export(folder, ["trial=4"])
    assert "test accuracy (%) 87.00 over 5 fresh seeds" in (written / "card.md").read_text()
    (written,) = export(folder, ["trial=3"])
    assert "fresh seeds" not in (written / "card.md").read_text()
    report = analyze([folder]).report.read_text()
    assert "Confirmed under fresh seeds" in report
    assert "so are optimistic" in report  # neither the best point nor the knee was confirmed
    knee = analyze([folder]).knee
    assert knee is not None
    of_knee = {name: knee[name] for name in ("trial", "knob", "knob_value", "is_default")}
    points = pd.read_csv(folder / "points.csv", dtype={"knob_value": str})
    mine = (points["trial"] == knee["trial"]) & (points["knob_value"] == str(knee["knob_value"]))
    of_knee["knob_value"] = exact = "0.30000000000000004"  # 17 digits: another parser than Python's loses the last
    points.loc[mine, "knob_value"] = exact
    points.to_csv(folder / "points.csv", index=False)
    CONFIRM.iloc[:1].assign(**of_knee).to_csv(folder / "confirm" / "confirm.csv", index=False)
    report = analyze([folder]).report.read_text()
    assert "the knee: test accuracy (%) 85.00 [84.00, 86.00] over 5 fresh seeds" in report
    assert "so are optimistic" not in report


def test_points_without_a_fresh_seed_are_said_in_words(make_results):
    folder = make_results()
    (folder / "confirm").mkdir()
    without = CONFIRM.assign(n=[0, 5])
    without.loc[0, [column for column in CONFIRM if column.endswith(("_mean", "_low", "_high", "_curse"))]] = math.nan
    without.to_csv(folder / "confirm" / "confirm.csv", index=False)
    results = read_results(folder)
    confirmed = read_confirmed(results)
    assert error_bars(confirmed, results)["label"].tolist() == ["confirmed: test accuracy, 95 %, n = 5"]
    shown = confirm_table(confirmed, results)
    assert shown is not None
    assert shown.note.endswith("n = 0: no training under a fresh seed has finished.")
    without.assign(trial=[4, 3], knob_value=[0.5, 0.92], is_default=[True, False]).to_csv(
        folder / "confirm" / "confirm.csv", index=False
    )
    (written,) = export(folder, ["trial=4"])
    card = (written / "card.md").read_text()
    assert "| confirmed | no training under a fresh seed has finished |" in card
    assert "nan" not in card


def test_damaged_confirm_is_named(make_results):
    folder = make_results(trials=7)
    (folder / "confirm").mkdir()
    (folder / "confirm" / "confirm.csv").write_bytes(b"\xff\xfe\x00")
    results = read_results(folder)
    assert read_confirmed(results).empty
    assert "confirm.csv" in results.problems[-1]


def test_level_means_and_curves(make_results):
    results = read_results(make_results(trials=42))
    means = level_means(finished(results), "dataset.patch_grid_size", "val_accuracy")
    assert set(means["level"]) == {4, 5, 8}
    assert means["n"].sum() == 42
    (curves,) = knob_curves(summarise(results)).values()
    assert len(curves) == 24
    assert all(curve["knob_value"].is_monotonic_increasing for curve in curves)


def test_parallel_axes_scale_numbers_and_names(make_results):
    trials = finished(read_results(make_results()))
    axes = parallel_axes(trials, ["val_accuracy", "flops"])
    for axis in axes:
        given = axis.positions[~np.isnan(axis.positions)]
        assert given.min() == 0
        assert given.max() == 1
    names = [axis.label for axis in axes]
    assert "router mode" in names
    assert names[-1].startswith("compute")


def test_varied_keys_ignore_missing_values():
    trials = pd.DataFrame({"seed": [0, 1], "model.a": [1.0, None], "model.b": [1, 2], "flops": [1, 2]})
    assert varied_keys(trials) == ["model.b"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.0, "8"),
        (0.25, "0.25"),
        (True, "true"),
        (np.int64(3), "3"),
        ("top_k", "top_k"),
        ("[128, 128]", "[128, 128]"),
        ("0.5", '"0.5"'),
        ("a: b", '"a: b"'),
        ("on", '"on"'),
        ("[1, 2", '"[1, 2"'),
        ("", '""'),
        (float("nan"), None),
        (None, None),
    ],
)
def test_yaml_value(value, text):
    assert yaml_value(value) == text


def test_the_same_study_again_goes_into_another_folder(make_results):
    folder = make_results("a b")
    _, again = [line for line in commands(read_results(folder)).splitlines() if line.startswith("routing sweep")]
    assert shlex.split(again)[2:] == [f"{folder}/study.yaml", "--out", f"{folder}_again"]


def test_tables_escape():
    content = table("50 % & more", ["a_b", Column("n", True)], [["x|y", "1"]], "note #1")
    assert r"x\|y" in to_markdown(content)
    assert set(to_markdown(content).splitlines()[3]) <= set("|-: ")  # a table only with a rule that is one
    assert r"\caption{50 \% \& more}" in to_latex(content)
    assert r"a\_b & n \\" in to_latex(content)
    assert latex("< 0.001 | > 3") == "$<$ 0.001 $|$ $>$ 3"
    assert latex("\\{}") == r"\textbackslash{}\{\}"


def test_the_cheapest_dense_point_as_good_is_that_of_a_literal_search() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = pd.Series(rng.integers(0, 6, 8).astype(float), index=rng.permutation(100)[:8])
        dense = pd.Series(rng.integers(0, 6, 5).astype(float), index=100 + rng.permutation(100)[:5])
        costs = pd.Series(rng.random(5), index=dense.index)
        found = _cheapest_as_good(values, dense, costs)
        for label, value in values.items():
            as_good = costs[dense >= value]
            assert pd.isna(found[label]) if as_good.empty else found[label] == as_good.idxmin()


@pytest.mark.parametrize("with_full_compute", [True, False])
def test_the_page_says_the_hypervolume_once(make_results, with_full_compute):
    folder = make_results(trials=7, unfinished=False)
    if not with_full_compute:
        for name in ("trials.csv", "points.csv"):
            rows = pd.read_csv(folder / name)
            rows.replace({"model.name": "full_compute"}, "cheap_compute").to_csv(folder / name, index=False)
    summary = summarise(read_results(folder))
    top = [card.label for card in cards(summary)]
    assert ("Hypervolume" in top) != with_full_compute
    assert "\n".join([*top, *headline(summary)]).count("Hypervolume") == 1
