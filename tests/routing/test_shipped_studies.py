"""The shipped studies of patch routing: every run they can come upon builds, stays below its reference, and trains."""

from __future__ import annotations

from typing import Any

import pytest

from routing.compute import expected_flops
from routing.config import RunConfig
from routing.run import run
from search_spaces import load_study
from search_spaces.ablation import arms
from search_spaces.schema import AblationStudy, SweepStudy
from search_spaces.space import Space

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
ON_PHOTOGRAPHS = "photographs"
SWEEPS = ("routing_digits", "routing_cifar10", "routing_image_folder")


def configs(name: str) -> dict[str, RunConfig]:
    """Return the arms of an ablation, or the corners and the enqueued settings of a sweep."""
    study = load_study(name)
    if isinstance(study, AblationStudy):
        return {arm.name: arm.config(study, study.seeds[0]) for arm in arms(study)}
    assert isinstance(study, SweepStudy)
    space = Space(study.space, study.base)
    settings = [*space.corners(), *study.enqueue]
    return {str(setting): space.config(setting) for setting in settings}


def on_digits(config: RunConfig) -> RunConfig:
    """Return a run on photographs as one on digits of the same size: what it costs differs only by the channels."""
    if config.dataset.name == "digits":
        return config
    keys = {f"dataset.{key}": getattr(config.dataset, key) for key in ("input_size", "patch_grid_size", "patch_margin")}
    return config.replace(**{"dataset.name": "digits", **keys})


@pytest.mark.parametrize("name", [*ABLATIONS, ON_PHOTOGRAPHS, *SWEEPS])
def test_every_run_of_a_study_can_be_built_and_costs_less_than_the_reference(name: str) -> None:
    objectives = {objective.metric: objective.reference for objective in load_study(name).objectives}
    built = configs(name)
    assert len(built) >= 4
    for setting, config in built.items():
        assert 0 < expected_flops(on_digits(config)) < objectives["flops"], setting


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
