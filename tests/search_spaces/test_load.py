"""Study files: what is read, and the one line for everything that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_studies import ablation_values, sweep_values

from routing.constraints import Constraint
from routing.errors import InputError
from routing.files.yaml_io import dump
from search_spaces import dry_run, load_study, studies, study_text, sweep
from search_spaces.ledger.folder import changes, dump_study, write_study
from search_spaces.plan import blueprint, check_device, planned_trials
from search_spaces.study.ablation import declared_arms
from search_spaces.study.load import parse_study
from search_spaces.study.parameters import at_quantile
from search_spaces.study.schema import AblationStudy, SweepStudy, parse_duration
from search_spaces.study.shipped import shipped
from search_spaces.study.space import Space

SPACE = sweep_values()["space"]


def test_every_shipped_study_parses_and_says_what_it_costs() -> None:
    for name in shipped():
        study = load_study(name)
        assert study.name == name
        assert study.question
        assert study.cost
        assert planned_trials(study) > 0
    assert {row["name"] for row in studies()} == set(shipped())


def test_a_shipped_name_means_the_shipped_study_wherever_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "digits", parse_study(sweep_values(name="another")))
    monkeypatch.chdir(tmp_path)
    assert load_study("digits").name == "digits"
    assert load_study("./digits").name == "another"
    assert load_study("digits/").name == "another"


def test_resolved_study_reads_back_equal(tmp_path: Path) -> None:
    for values in (sweep_values(), ablation_values()):
        study = parse_study(values)
        write_study(tmp_path, study)
        again = load_study(tmp_path / "study.yaml")
        assert again == study
        assert changes(dump_study(study), dump_study(again)) == []


def test_changes_name_the_key() -> None:
    old = dump_study(parse_study(sweep_values()))
    new = dump_study(parse_study(sweep_values(sampler={"name": "tpe", "seed": 3}, trials=9)))
    assert changes(old, new) == ["sampler.name: 'random' -> 'tpe'"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("10min", 600), ("1h30m", 5400), ("1.5h", 5400), (7, 7), ("2.5", 2.5)],
)
def test_durations(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3", 0, True, None, "3 weeks", "1h30", "5m10"])
def test_no_durations(text: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_constraints() -> None:
    found = Constraint.of("flops <= 1.0e6")
    assert (found.metric, found.sign, found.limit) == ("flops", "<=", 1e6)
    assert [Constraint.of(f"flops < {text}").limit for text in ("5", "5.", ".5", "+5.5e3")] == [5, 5, 0.5, 5500]
    # a cost is compared in decades: 1e7 is one above; 1e5 one below
    assert [found.violation(value) for value in (1e7, 1e6, 1e5)] == pytest.approx([1, 0, -1])
    assert [Constraint.of("val_accuracy > 0.5").holds(value) for value in (0.4, 0.5, 0.6)] == [False, False, True]
    assert [Constraint.of("val_accuracy >= 0.5").holds(value) for value in (0.4, 0.5, 0.6)] == [False, True, True]
    with pytest.raises(ValueError, match="'val_acuracy' is not measured at every point; did you mean 'val_accuracy'"):
        Constraint.of("val_acuracy > 0.5")
    with pytest.raises(ValueError, match=r"accuracies are shares: 0\.9"):
        Constraint.of("val_accuracy >= 90")


def test_short_forms() -> None:
    study = parse_study(sweep_values(space={**SPACE, "dataset.patch_grid_size": [4, 5], "seed": 7}))
    assert study.space["dataset.patch_grid_size"].choice == (4, 5)
    assert study.space["seed"].value == 7


def test_a_schedule_of_blocks_is_one_value_wherever_it_stands() -> None:
    schedules = [{1: 0.7, 2: 0.5}, 4]
    base = {"dataset.name": "digits", "model": {"name": "vit", "pruning": {"method": "evit", "schedule": {3: 0.5}}}}
    space = {"model.pruning.schedule": {"choice": schedules}, "model.pruning.grid.schedule": {"value": [{2: 10}]}}
    study = parse_study({**sweep_values(), "base": base, "space": space})
    assert study.space["model.pruning.schedule"].choice == ("0.7@1/0.5@2", 4)
    assert study.space["model.pruning.grid.schedule"].value == ["10@2"]
    assert study.base["model"]["pruning"]["schedule"] == "0.5@3"


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
    with pytest.raises(InputError, match="digitz: no such study; did you mean 'digits'"):
        load_study("digitz")
    with pytest.raises(InputError, match="folder without study"):
        load_study(tmp_path)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="a study is a mapping"):
        load_study(tmp_path / "list.yaml")


def test_keys_of_another_model_are_left_out_of_its_trials() -> None:
    values = sweep_values(
        base={"training.num_epochs": 1, "model.router.budget.target": 0.4},
        space={"model.name": ["attention_routing", "full_compute"]},
    )
    study = parse_study(values)
    space = Space(study.space, study.base)
    assert space.config({"model.name": "attention_routing"}).dotted()["model.router.budget.target"] == 0.4
    assert "model.router.budget.target" not in space.config({"model.name": "full_compute"}).dotted()


def test_a_share_is_zero_to_one() -> None:
    options = {"crossover_prob": 0, "swapping_prob": 1, "population_size": 2}
    assert parse_study(sweep_values(sampler={"name": "nsga2", "options": options}))


def test_studies_of_one_model_that_is_not_the_default_one() -> None:
    objectives = [{"metric": "val_srcc", "goal": "maximize", "reference": 0.0}]
    searched = sweep_values(base={"dataset.name": "quality"}, space={"model.name": ["hyperiqa"]}, objectives=objectives)
    chosen = sweep_values(base={"model.name": "hyperiqa"}, space={"dataset.name": ["quality"]}, objectives=objectives)
    losses = {"model.name": ["hyperiqa"], "dataset.name": ["quality"]}
    shared = sweep_values(base={"training.loss": "mse"}, space=losses, objectives=objectives)
    for values in (searched, chosen, shared):
        study = parse_study(values)
        assert isinstance(study, SweepStudy)
        config = Space(study.space, study.base).config({"model.name": "hyperiqa", "dataset.name": "quality"})
        assert (config.model.name, config.dataset.name) == ("hyperiqa", "quality")
        assert config.training.loss == study.base.get("training.loss", "auto")
    arms = {"concat": {"model.name": "hyperiqa", "model.fusion.mode": "concat"}}
    arms["uniform"] = {"model.name": "hyperiqa", "model.fusion.mode": "uniform"}
    values = ablation_values(
        design="arms", base={"dataset.name": "quality"}, factors={"fusion": arms}, objectives=objectives
    )
    assert planned_trials(parse_study(values)) == 4


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


def test_the_file_of_a_shipped_study_is_a_start_for_an_own_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(study_text("digits"), encoding="utf-8")
    assert load_study(path) == load_study("digits")
    with pytest.raises(InputError, match="digitz: no such study; did you mean 'digits'"):
        study_text("digitz")


def test_trials_without_a_share_of_a_gpu_stay_off_it() -> None:
    for values in (sweep_values, ablation_values):
        for gpu, device in ((0, "cpu"), (0.5, "auto")):
            plan = blueprint(parse_study(values(resources={"gpu": gpu})))
            setting = plan.space.decide(lambda name, parameter: at_quantile(parameter, 0.0))
            assert plan.configure(setting).device == device


def test_a_gpu_is_taken_by_its_share_only(tmp_path: Path) -> None:
    cuda = {"device": "cuda:1"}
    for study in (
        sweep_values(base=cuda),
        sweep_values(space={**SPACE, "device": ["cpu", "cuda:1"]}),
        ablation_values(factors={"where": {"gpu": cuda}}),
    ):
        for start in (dry_run, lambda study: sweep(study, tmp_path / "out")):
            with pytest.raises(InputError, match=r"device 'cuda:1', but resources\.gpu is 0; say what share"):
                start(parse_study(study))
        check_device(parse_study({**study, "resources": {"gpu": 0.5}}))
    assert not (tmp_path / "out").exists()


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


def test_values_of_the_base_that_one_model_can_have() -> None:
    names = {"model.name": ["full_compute", "no_routing"]}  # no_routing pools by the mean and by nothing else
    study = parse_study(sweep_values(base={"model.aggregator": "attention"}, space=names))
    assert isinstance(study, SweepStudy)
    space = Space(study.space, study.base)
    assert space.config({"model.name": "full_compute"}).dotted()["model.aggregator"] == "attention"
    assert space.config({"model.name": "no_routing"}).dotted()["model.aggregator"] == "mean"


def test_seeds_can_cut_the_data_anew_and_are_then_the_same_cut_for_every_arm() -> None:
    study = load_study("small_objects")
    assert isinstance(study, AblationStudy)
    for arm in declared_arms(study)[:2]:
        configs = [arm.config(study, seed) for seed in study.seeds]
        assert [(config.seed, config.dataset.seed) for config in configs] == [(seed, seed) for seed in study.seeds]
    fixed = load_study("photographs_routed")
    assert isinstance(fixed, AblationStudy)
    assert declared_arms(fixed)[0].config(fixed, 3).dataset.seed == 0


@pytest.mark.parametrize(
    "base", [{"dataset.split.repeats": 3}, {"dataset": {"split": {"repeats": 3}}}, {"dataset": {"split.repeats": 3}}]
)
def test_repeats_of_a_split_are_seeds_that_cut_anew(base: dict[str, Any]) -> None:
    values = ablation_values()
    del values["seeds"]
    shared = {key: value for key, value in values["base"].items() if key != "dataset.name"}
    nested = {"dataset": {"name": "digits", **base.get("dataset", {})}, **{k: v for k, v in base.items() if "." in k}}
    study = parse_study({**values, "base": {**shared, **nested}})
    assert isinstance(study, AblationStudy)
    assert (study.seeds, study.split_by_seed) == ((0, 1, 2), True)
    config = declared_arms(study)[0].config(study, 2)
    assert (config.dataset.seed, config.seed) == (2, 2)


@pytest.mark.parametrize("more", [{"seeds": [0, 1]}, {"split_by_seed": True}])
def test_repeats_and_what_they_are_short_for_exclude_each_other(more: dict[str, Any]) -> None:
    values = {key: value for key, value in ablation_values().items() if key != "seeds"}
    base = {**values["base"], "dataset.split.repeats": 3}
    with pytest.raises(InputError, match="repeats: 3 is short for split_by_seed: true and seeds 0 to 2"):
        parse_study({**values, "base": base, **more})
    with pytest.raises(InputError, match=r"repeats is 1 .valid: whole numbers from 2"):
        parse_study({**values, "base": {**base, "dataset.split.repeats": 1}})
