"""Confirm: fresh seeds for the configurations on the front, points matched, intervals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from small_studies import sweep_values

from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.atomic import write_text
from routing.files.results_folder import METRICS_FILE, trial_folder
from search_spaces import confirm, sweep
from search_spaces.confirm_table import baseline_of, match, write_confirmed
from search_spaces.confirmation import confirmation_study, distinct_configurations
from search_spaces.ledger.folder import write_study
from search_spaces.plan import planned_trials
from search_spaces.study.load import load_study, parse_study

FRONT = "trial,knob,knob_value,is_default,val_accuracy,flops\n"


def results(tmp_path: Path) -> Path:
    """A results folder of three trials, two of them the same run."""
    write_study(tmp_path, parse_study(sweep_values()))
    for number, grid in enumerate([4, 8, 4]):
        config = RunConfig.from_dict({"dataset.patch_grid_size": grid, "seed": number})
        write_text(trial_folder(tmp_path, number) / "config.yaml", config.to_yaml())
        write_text(trial_folder(tmp_path, number) / METRICS_FILE, '{"metrics": {}, "points": []}')
    return tmp_path


def test_each_configuration_once_under_seeds_nobody_used(tmp_path: Path) -> None:
    folder = results(tmp_path)
    front = pd.DataFrame({"trial": [2, 1, 1, 0], "flops": [1, 2, 3, 4]})
    arms = distinct_configurations(folder, front["trial"])
    assert arms == {2: 2, 1: 1, 0: 2}  # 0 is the run of 2 under another seed
    study = confirmation_study(folder, load_study(folder), arms, seeds=3)
    assert study.kind == "ablation"
    assert list(study.factors["trial"]) == ["2", "1"]
    assert study.seeds == (3, 4, 5)
    assert planned_trials(study) == 6
    (folder / "trials.csv").write_text("number,seed\n0,0\n1,1\n2,2\n3,8\n4,\n")  # not on the front, but in the race
    assert confirmation_study(folder, load_study(folder), arms, seeds=2).seeds == (9, 10)


def test_points_are_matched_by_default_knob_value_or_cost() -> None:
    points = pd.DataFrame(
        {"is_default": [True, False, False], "knob_value": [0.3, 0.1, 0.7], "flops": [3e5, 1e5, 9e5], "x": [0, 1, 2]}
    )
    default = pd.Series({"is_default": True, "knob_value": 9.0, "flops": 9e5})
    same = pd.Series({"is_default": False, "knob_value": 0.1, "flops": 9e5})
    near = pd.Series({"is_default": False, "knob_value": 0.2, "flops": 7e5})
    assert [match(chosen, points)["x"] for chosen in (default, same, near)] == [0, 1, 2]  # type: ignore[index]
    assert match(default, points[:0]) is None


def test_confirm_csv_has_means_intervals_and_the_winners_curse(tmp_path: Path) -> None:
    front = pd.DataFrame(
        {"trial": [7], "knob": ["threshold"], "knob_value": [0.5], "is_default": [True], "flops": [1e6],
         "val_accuracy": [0.90], "model.name": ["full_compute"]}
    )  # fmt: skip
    points = pd.DataFrame(
        {"arm": [7, 7], "seed": [1, 2], "is_default": [True, True], "knob_value": [0.4, 0.6], "flops": [9e5, 1.1e6],
         "val_accuracy": [0.86, 0.88], "test_accuracy": [0.84, 0.86]}
    )  # fmt: skip
    objectives = parse_study(sweep_values()).objectives
    assert [objective.metric for objective in objectives] == ["val_accuracy", "flops"]
    write_confirmed(tmp_path, pd.concat([front, front.assign(trial=9)]), points, objectives, {7: 7, 9: 7})
    row, again = pd.read_csv(tmp_path / "confirm.csv").iloc
    assert again["n"] == 2  # trial 9 is the configuration of trial 7
    assert row["n"] == 2
    assert row["val_accuracy_mean"] == pytest.approx(0.87)
    assert (row["test_accuracy_low"], row["test_accuracy_high"]) == (0.84, 0.86)  # of two seeds the range
    assert row["selected_val_accuracy"] == 0.90
    assert row["winners_curse"] == pytest.approx(0.05)
    assert row["model.name"] == "full_compute"


def test_the_difference_to_the_baseline_is_paired_by_seed(tmp_path: Path) -> None:
    common = {"knob": "none", "knob_value": "0", "is_default": True}
    front = pd.DataFrame(
        [{"trial": 7, **common, "flops": 3e5, "val_accuracy": 0.93, "model.name": "attention_routing"}]
    )
    dense = {"trial": 2, **common, "flops": 1e6, "val_accuracy": 0.94, "model.name": "full_compute"}
    others = [{**dense, "trial": 3, "val_accuracy": 0.93}, {**dense, "trial": 4, "model.name": "no_routing"}]
    objectives = parse_study(sweep_values()).objectives
    baseline = baseline_of(pd.DataFrame([*others, dense]), objectives)
    assert baseline is not None
    assert baseline["trial"] == 2
    assert baseline_of(front, objectives) is None
    checked = pd.DataFrame([*({**other, "violates": None} for other in others), {**dense, "violates": "flops <= 1e5"}])
    allowed = baseline_of(checked, objectives)
    assert allowed is not None
    assert allowed["trial"] == 3
    ours, theirs = [0.90, 0.92, 0.94, 0.96], [0.91, 0.94, 0.95, 0.98]
    points = pd.DataFrame(
        [{"arm": arm, "seed": seed, **common, "flops": flops, "val_accuracy": 0.9, "test_accuracy": values[seed]}
         for arm, values, flops in ((7, ours, 3e5), (2, theirs, 1e6)) for seed in range(4)]
    )  # fmt: skip
    write_confirmed(tmp_path, front, points, objectives, {7: 7, 2: 2}, baseline)
    row, own = pd.read_csv(tmp_path / "confirm.csv").iloc
    assert (row["baseline"], own["baseline"], own["trial"], row["pairs"]) == (2, 2, 2, 4)
    # differences -0.01, -0.02, -0.01, -0.02: mean -0.015, half width 3.182 * 0.00577 / 2 = 0.00919
    ends = (row["difference_mean"], row["difference_low"], row["difference_high"])
    assert ends == pytest.approx((-0.015, -0.02419, -0.00581), abs=1e-5)
    assert row["cost_of_baseline"] == pytest.approx(0.3)
    assert pd.isna(own["difference_mean"])


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no results folder"):
        confirm(tmp_path)
    folder = results(tmp_path)
    with pytest.raises(InputError, match=r"front.csv: no such file; `routing analyze"):
        confirm(folder)
    with pytest.raises(InputError, match="seeds must be at least 2"):
        confirm(folder, seeds=1)
    with pytest.raises(InputError, match="seeds must be above 3, not 3, to be adaptive"):
        confirm(folder, seeds=3, adaptive=True)
    (folder / "front.csv").write_text("trial,flops\n0,1\n")
    with pytest.raises(InputError, match=r"front.csv: no column knob, knob_value, is_default, val_accuracy; `routing"):
        confirm(folder)
    for row in ("word,t,0.5,True,0.9,1e6", "0.5,t,0.5,True,0.9,1e6", "0,t,0.5,True,word,1e6", "1e400,t,0,True,0.9,1e6"):
        (folder / "front.csv").write_text(f"{FRONT}0,t,0.5,True,0.9,1e6\n{row}\n")
        with pytest.raises(InputError, match=r"front.csv:3: (trial|val_accuracy) is \S+, no number; `routing analyze"):
            confirm(folder)
    (folder / "front.csv").write_text(FRONT)
    with pytest.raises(InputError, match="nothing to confirm"):
        confirm(folder)
    assert not (folder / "confirm").exists()


def test_data_without_a_test_split_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / "train" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "images" / "train" / name / f"{index}.png")
    folder = results(tmp_path)
    config = RunConfig.from_dict({"dataset": {"name": "image_folder", "root": str(tmp_path / "images")}})
    write_text(trial_folder(folder, 0) / "config.yaml", config.to_yaml())
    (folder / "front.csv").write_text(f"{FRONT}0,none,,True,0.9,1\n")
    with pytest.raises(InputError, match=r"no split 'test' \(valid: train, val\)"):
        confirm(folder)
    assert not (folder / "confirm").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("standing_ray")
def test_confirm_trains_again_and_reads_the_test_split(tmp_path: Path) -> None:
    tiny = {"training.num_epochs": 1, "dataset.num_train": 200, "dataset.num_val": 100, "dataset.num_test": 100}
    study = parse_study(sweep_values(base=tiny, trials=2))
    out = sweep(study, tmp_path / "out", concurrency=2)
    points = pd.read_csv(out / "points.csv")
    assert not any(column.startswith("test_") for column in points)
    points[points["trial"] == 0].to_csv(out / "front.csv", index=False)
    confirm(out, seeds=2, concurrency=2)
    found = pd.read_csv(out / "confirm" / "confirm.csv")
    assert found["n"].tolist() == [2] * len(found)
    assert found["test_accuracy_mean"].between(0, 1).all()
    tested = pd.read_csv(out / "confirm" / "points.csv")
    assert tested["seed"].unique().tolist() == [1, 2]
    assert tested["test_accuracy"].notna().all()
    confirm(out, seeds=3, concurrency=2)  # one more seed is added to what is there
    assert pd.read_csv(out / "confirm" / "confirm.csv")["n"].tolist() == [3] * len(found)
    assert len(pd.read_csv(out / "confirm" / "trials.csv")) == 3
    confirm(out, seeds=4, adaptive=True, concurrency=2)  # keeps the three, and spends at most one more
    assert load_study(out / "confirm" / "study.yaml").seeds_per_arm.keys() == {"0"}  # type: ignore[union-attr]
    trained = len(pd.read_csv(out / "confirm" / "trials.csv"))
    assert pd.read_csv(out / "confirm" / "confirm.csv")["n"].tolist() == [trained] * len(found)
    assert trained in (3, 4)
