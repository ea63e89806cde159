"""The shipped studies: every run they can come upon builds and stays below its reference; those of routing train."""

from __future__ import annotations

from typing import Any

import pytest

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.data.image_folder import MEAN, STD
from routing.errors import InputError
from routing.evaluation.compute import expected_flops
from routing.models import build_model
from routing.runner import run
from search_spaces import load_study
from search_spaces.study.ablation import declared_arms
from search_spaces.study.schema import AblationStudy, SweepStudy
from search_spaces.study.shipped import shipped
from search_spaces.study.space import Space

ABLATIONS = (
    "threshold",
    "grid_size",
    "routing_on_off",
    "router_mode_vs_controls",
    "budget_loss",
    "training_form",
    "aggregator",
    "knob_or_retrain",
)


def configs(name: str) -> dict[str, RunConfig]:
    """Return the arms of an ablation, or the corners and the enqueued settings of a sweep."""
    study = load_study(name)
    if isinstance(study, AblationStudy):
        return {arm.name: arm.config(study, study.seeds[0]) for arm in declared_arms(study)}
    assert isinstance(study, SweepStudy)
    space = Space(study.space, study.base)
    settings = [*space.corners(), *study.enqueue]
    return {str(setting): space.config(setting) for setting in settings}


def cost(config: RunConfig) -> float:
    """Return the expected multiply-adds of a run; those of photographs without having any."""
    dataset = config.dataset
    if dataset.name not in ("image_folder", "cifar10", "boxed_images"):
        return expected_flops(config)
    size, grid, margin = dataset.input_size, dataset.patch_grid_size, dataset.patch_margin
    info = DataInfo("classification", 3, size, 10, MEAN, STD, patch_grid_size=grid, patch_margin=margin, facts=("box",))
    return build_model(config.model, info).expected_flops()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_run_of_a_study_can_be_built_and_costs_less_than_the_reference(name: str) -> None:
    objectives = {objective.metric: objective.reference for objective in load_study(name).objectives}
    built = configs(name)
    assert len(built) >= 2
    for setting, config in built.items():
        try:
            assert 0 < cost(config) < objectives["flops"], setting
        except InputError as error:  # a search refuses such a setting and proposes another
            assert "is out of reach" in str(error)  # noqa: PT017
            assert name == "all_digits"


def test_five_seeds_and_the_same_objectives_in_every_ablation() -> None:
    for name in ABLATIONS:
        study = load_study(name)
        assert isinstance(study, AblationStudy)
        assert len(study.seeds) == 5
        assert [objective.metric for objective in study.objectives] == ["val_accuracy", "flops"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_arm_trains(name: str, tiny: dict[str, Any]) -> None:
    for config in configs(name).values():
        record = run(config.replace(**tiny))
        assert 0 <= record.metrics["val_accuracy"] <= 1


@pytest.mark.slow
def test_the_enqueued_trials_of_the_digits_sweep_train(tiny: dict[str, Any]) -> None:
    study = load_study("routing_digits")
    assert isinstance(study, SweepStudy)
    space = Space(study.space, study.base)
    for setting in study.enqueue:
        assert run(space.config(setting).replace(**tiny)).metrics["flops"] > 0
