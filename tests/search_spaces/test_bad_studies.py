"""Study files that are wrong: one line, what, where, and what would be valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_studies import ablation_values, sweep_values

from routing.errors import InputError
from routing.files.yaml_io import dump
from search_spaces import load_study
from search_spaces.study.load import parse_study

SPACE = sweep_values()["space"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "swep"}, "unknown kind 'swep'; did you mean 'sweep'"),
        ({"kind": None}, "the key is missing"),
        ({"kind": ["sweep"]}, "unknown kind ['sweep']"),
        ({"base": {"dataset": {1: 2}}}, "key 1 is not text"),
        ({"trails": 3}, "unknown key 'trails'; did you mean 'trials'"),
        ({"trials": 0}, "trials: input should be greater than or equal to 1, not 0"),
        ({"trials": "many"}, "trials: input should be a valid integer"),
        ({"name": "../../up"}, "name: '../../up' cannot name a folder"),
        ({"base": {"training.num_epoch": 2}}, "unknown key 'training.num_epoch'; did you mean 'training.num_epochs'"),
        ({"base": {"training": 3}}, "training"),
        ({"base": {"model.name": "full_compte"}}, "unknown model 'full_compte'; did you mean 'full_compute'"),
        ({"base": {"training.num_epochs": -1}}, "training.num_epochs: must be greater than or equal to 0"),
        ({"space": {}}, "space: dictionary should have at least 1 item"),
        ({"space": {**SPACE, "model.router.mod": ["top_k"]}}, "did you mean 'model.router.mode'"),
        ({"space": {**SPACE, "model.router.mode": ["topk"]}}, "unknown router mode 'topk'"),
        ({"space": {**SPACE, "seed": {"int": [5, 2]}}}, "empty range: low 5 is above high 2"),
        ({"space": {**SPACE, "training.learning_rate": {"float": [0, 1], "log": True}}}, "log range starts above 0"),
        ({"space": {**SPACE, "seed": {"int": [0, 2], "choice": [1]}}}, "exactly one of choice, float, int or value"),
        ({"space": {**SPACE, "seed": {"choice": []}}}, "space.seed.choice"),
        ({"space": {**SPACE, "seed": {"choice": [1, 1]}}}, "the same choice is given twice"),
        (
            {"space": {**SPACE, "seed": {"int": [0, 2], "when": {"model.nam": "x"}}}},
            "'model.nam', which is no parameter",
        ),
        (
            {"space": {**SPACE, "seed": {"int": [0, 2], "when": {"model.router.temperature": 1}}}},
            "a range; only a choice can decide",
        ),
        (
            {
                "space": {
                    **SPACE,
                    "seed": {"choice": [1], "when": {"device": "cpu"}},
                    "device": {"choice": ["cpu"], "when": {"seed": 1}},
                }
            },
            "circle",
        ),
        (
            {
                "space": {
                    **SPACE,
                    "model.router.mode": {"choice": ["top_k"]},
                    "seed": {"int": [0, 2], "when": {"model.router.mode": "topk"}},
                }
            },
            "which it never is; did you mean 'top_k'",
        ),
        (
            {"space": {**SPACE, "model.name": ["attention_routing", "full_compute"]}},
            "belongs to model attention_routing, routed_conv, not to full_compute; give 'model.router.threshold_init'",
        ),
        ({"space": {**SPACE, "dataset.patch_grid_size": [5, 7]}}, "patch_grid_size 7 does not divide"),
        ({"objectives": []}, "objectives"),
        (
            {"objectives": [{"metric": "val_acuracy", "goal": "maximize", "reference": 0}]},
            "did you mean 'val_accuracy'",
        ),
        ({"objectives": [{"metric": "flops", "goal": "minimize"}]}, "'objectives.0.reference' is missing"),
        (
            {"objectives": [{"metric": "flops", "goal": "minimize", "referenze": 1}]},
            "unknown key 'objectives.0.referenze'; did you mean 'reference'",
        ),
        (
            {
                "objectives": [
                    {"metric": "flops", "goal": "minimize", "reference": 1e6},
                    {"metric": "val_accuracy", "goal": "maximize", "reference": 0.2},
                ]
            },
            "objectives: the task's metric comes first, and 'flops' is a cost",
        ),
        ({"sampler": {"name": "gpp"}}, "sampler.name"),
        ({"sampler": {"name": "tpe", "options": {"popsize": 3}}}, "sampler tpe has no option 'popsize'"),
        ({"scheduler": {"name": "asha", "reduction_factor": 1}}, "scheduler.reduction_factor"),
        ({"scheduler": {"name": "asha", "reduction_factor": 1.000001}}, "scheduler.reduction_factor"),
        (
            {"sampler": {"name": "nsga2", "options": {"population_size": 1}}},
            "sampler option population_size: input should be greater than or equal to 2, not 1",
        ),
        (
            {"sampler": {"name": "nsga2", "options": {"mutation_prob": 1.5}}},
            "sampler option mutation_prob: input should be less than or equal to 1, not 1.5",
        ),
        (
            {"sampler": {"name": "tpe", "options": {"n_startup_trials": 2.5}}},
            "n_startup_trials: input should be a valid integer, not 2.5",
        ),
        ({"sampler": {"name": "qmc", "options": {"scramble": 1}}}, "scramble: input should be a valid boolean, not 1"),
        (
            {"sampler": {"name": "grid", "options": {"points": 10**9}}},
            "points: input should be less than or equal to 1000000",
        ),
        (
            {"sampler": {"name": "tpe", "options": {"multivariate": False, "group": True}}},
            "group needs multivariate: true",
        ),
        (
            {"objectives": [{"metric": "flops", "goal": "maximize", "reference": 1e6}]},
            "flops is better the other way: goal: minimize",
        ),
        ({"constraints": ["flops < many"]}, "cannot read 'flops < many'"),
        ({"constraints": ["flops < 1.2.3"]}, "cannot read 'flops < 1.2.3'; write it as in flops <= 1.0e6"),
        ({"constraints": ["flops < ."]}, "cannot read 'flops < .'"),
        ({"enqueue": [{"model.router.temperatur": 1}]}, "did you mean 'model.router.temperature'"),
        ({"enqueue": [{"model.router.temperature": 50}]}, "is never 50 in this space"),
        ({"trial_timeout": "later"}, "trial_timeout: a duration is written"),
        ({"resources": {"cpus": 1}}, "unknown key 'resources.cpus'; did you mean 'cpu'"),
    ],
)
def test_bad_sweeps_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_study(sweep_values(**change), "study.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("study.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [0, "one"]}, "seeds.1: input should be a valid integer"),
        ({"seeds": [0.5]}, "seeds.0"),
        ({"seeds": [1, 1]}, "the same seed is given twice"),
        ({"seeds": []}, "seeds"),
        ({"factors": {}}, "factors"),
        ({"factors": {"a": {}}}, "factors.a"),
        ({"factors": {"a": {"x": {"model.router.mode": "tpk"}}}}, "unknown router mode 'tpk'"),
        ({"factors": {"a": {"x": {"model.rooter.mode": "top_k"}}}}, "did you mean 'model.router.mode'"),
        (
            {"factors": {"a": {"x": {"training.batch_size": 32}, "y": {"training": {"batch_size": 32}}}}},
            "duplicate arms: 'a=x' and 'a=y' are the same run",
        ),
        ({"factors": {"training.batch_size": [32, 64]}}, "duplicate arms: 'baseline' and 'training.batch_size=64'"),
        ({"factors": {"a": {"x": {"seed": 1}}}}, "arm 'a=x' changes 'seed'"),
        ({"factors": {"training.batch_size": [64, "64"]}}, "the level 64 is given twice in"),
        ({"design": "leave_one_out"}, "factor 'mode' has 2 levels"),
        ({"design": "latin"}, "design"),
    ],
)
def test_bad_ablations_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_study(ablation_values(**change), "study.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    objectives = "objectives: [{metric: flops, goal: minimize, reference: 1}]"
    path.write_text(f"kind: sweep\nname: x\nspace:\n  seed: {{int: [5, 1]}}\n{objectives}\ntrials: 1\n")
    with pytest.raises(InputError, match=r"mine.yaml:4: space.seed: empty range"):
        load_study(path)
    path.write_text("kind: sweep\nname: [x\n")
    with pytest.raises(InputError, match=r"mine.yaml:\d+:\d+: not valid YAML"):
        load_study(path)
    values = sweep_values(base={"training": {"num_epochs": 2, "batchsize": 3}})
    path.write_text(dump(values))
    line = 1 + path.read_text().splitlines().index("    batchsize: 3")
    with pytest.raises(InputError, match=rf"mine.yaml:{line}: unknown key 'training.batchsize'"):
        load_study(path)


def test_unknown_study_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("none.yaml", "studies/none"):
        with pytest.raises(InputError, match=f"{path}: no such file$"):
            load_study(path)
    with pytest.raises(InputError, match=r"digits.yml: no such file; the shipped study is called 'digits'"):
        load_study("digits.yml")
    with pytest.raises(InputError, match="digitz: no such study; did you mean 'digits'"):
        load_study("digitz")
    with pytest.raises(InputError, match="folder without study"):
        load_study(tmp_path)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="a study is a mapping"):
        load_study(tmp_path / "list.yaml")


def test_an_objective_is_something_that_the_runs_report() -> None:
    """It would be missed only when a trial has been trained to its end."""
    accuracy = {"metric": "val_accuracy", "goal": "maximize", "reference": 0.0}
    quality = {"dataset.name": "quality", "model.name": "hyperiqa"}
    with pytest.raises(InputError, match=r"task is quality, report no val_accuracy \(valid: val_srcc, val_plcc, "):
        parse_study(sweep_values(base=quality, space={"seed": {"int": [0, 3]}}, objectives=[accuracy]))
    with pytest.raises(InputError, match=r"report no val_accuracy"):
        parse_study(ablation_values(base=quality, factors={"training.num_epochs": [1, 2]}, objectives=[accuracy]))
    further = {**accuracy, "metric": "val_balanced_accuracy"}
    with pytest.raises(InputError, match=r"evaluation.metrics: \[balanced_accuracy\] in the base adds it"):
        parse_study(sweep_values(objectives=[further]))
    assert parse_study(sweep_values(base={"evaluation.metrics": ["balanced_accuracy"]}, objectives=[further]))


def test_an_enqueued_setting_says_what_decides_about_its_keys() -> None:
    mode = {"choice": ["top_k", "learnable_threshold", "random"]}
    temperature = {"float": [0.1, 3.0], "when": {"model.router.mode": ["top_k", "learnable_threshold"]}}
    space = {"model.router.mode": mode, "model.router.temperature": temperature}
    setting = {"model.router.temperature": 1.0}
    with pytest.raises(
        InputError, match=r"temperature has a when; give model.router.mode, which decides about it, too"
    ):
        parse_study(sweep_values(space=space, enqueue=[setting]))
    for name in ("top_k", "learnable_threshold"):  # also where it is not the first choice
        assert parse_study(sweep_values(space=space, enqueue=[{**setting, "model.router.mode": name}]))
    with pytest.raises(InputError, match="its when does not hold"):
        parse_study(sweep_values(space=space, enqueue=[{**setting, "model.router.mode": "random"}]))


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"model.aggregator": "meen"}, "unknown aggregator 'meen'; did you mean 'mean'"),
        ({"model.experts": {"width": 32, "big": [0]}}, "model.experts.big"),
        ({"model.budget.target": 7}, "model.budget.target: must be less than or equal to 1"),
    ],
)
def test_values_of_the_base_that_no_model_can_have(base: dict[str, Any], message: str) -> None:
    names = ["full_compute", "dense_matched"]
    arms = {name: {"model.name": name} for name in names}
    searched = sweep_values(base=base, space={"model.name": names})
    declared = ablation_values(base=base, design="arms", factors={"model": arms})
    for values in (searched, declared):
        with pytest.raises(InputError, match=message) as error:
            parse_study(values, "study.yaml")
        assert str(error.value).startswith("study.yaml: ")
