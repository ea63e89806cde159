"""Study files: what is read from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_studies import ablation_values, sweep_values

from routing.constraints import Constraint
from routing.errors import InputError
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
