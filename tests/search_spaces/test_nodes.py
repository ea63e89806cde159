"""Nodes that are not fit for a trial, and trials that fail one like the other."""

from __future__ import annotations

from typing import Any

import pytest
from ray.tune import PlacementGroupFactory

from routing.config.run import RunConfig
from routing.errors import InputError, MissingPackage, NodeFault, TrialFailed
from routing.node import lacks, run_of
from search_spaces.on_ray.nodes import Nodes
from search_spaces.stopping import Stopping
from search_spaces.study.schema import ResourcesSection

ONE, TWO = "a" * 56, "b" * 56
DIGITS = RunConfig()
OTHER = RunConfig.from_dict({"dataset.seed": 7})


class Trial:
    """A trial of Ray Tune that does not run."""

    def __init__(self) -> None:
        self.placement_group_factory = PlacementGroupFactory([{"CPU": 1}])

    def update_resources(self, resources: PlacementGroupFactory) -> None:
        self.placement_group_factory = resources


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    alive: list[dict[str, Any]] = [
        {"Alive": True, "NodeID": each, "NodeManagerAddress": f"10.0.0.{n}", "Resources": {"CPU": 1.0}}
        for n, each in enumerate((ONE, TWO), start=1)
    ]
    monkeypatch.setattr("ray.nodes", lambda: alive)
    return Nodes(ResourcesSection())


def test_a_node_that_lacks_data_is_left_out_for_trials_of_these_data(nodes: Nodes) -> None:
    line = nodes.leave_out(ONE, "dataset", DIGITS, "no file x")
    assert line == "node 10.0.0.1 is left out for trials with this dataset: no file x"
    assert nodes.leave_out(ONE, "dataset", DIGITS, "no file x") is None, "it is said once"
    assert (nodes.left_out(DIGITS), nodes.left_out(OTHER)) == ({ONE: "no file x"}, {})
    assert nodes.why_nowhere(DIGITS) is None
    nodes.leave_out(TWO, "dataset", DIGITS, "no file x")
    assert (nodes.why_nowhere(DIGITS), nodes.why_nowhere(OTHER), nodes.is_closed()) == ("no file x", None, None)


def test_a_node_that_no_trial_can_run_on_is_left_out_for_all(nodes: Nodes) -> None:
    assert nodes.leave_out(ONE, "node", DIGITS, "no folder") == "node 10.0.0.1 is left out: no folder"
    trial: Any = Trial()
    nodes.place(trial, OTHER)
    [selector] = trial.placement_group_factory._bound.kwargs["bundle_label_selector"]
    assert selector == {"ray.io/node-id": f"!in({ONE})"}
    before = trial.placement_group_factory
    nodes.place(trial, OTHER)
    assert trial.placement_group_factory is before, "Ray Tune keeps waiting trials by their resources"
    assert nodes.is_closed() is None
    nodes.leave_out(TWO, "node", DIGITS, "another version")
    assert nodes.is_closed() == "no folder"


def test_a_trial_is_placed_as_ray_likes_while_no_node_is_left_out(nodes: Nodes) -> None:
    trial: Any = Trial()
    before = trial.placement_group_factory
    nodes.place(trial, DIGITS)
    assert trial.placement_group_factory is before


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (NodeFault("no folder"), "node"),
        (NodeFault("no data", "dataset"), "dataset"),
        (MissingPackage("timm"), "model"),
        (ModuleNotFoundError("timm"), "model"),
        (TrialFailed("loss is nan"), ""),
        (InputError("heads 3"), ""),
    ],
)
def test_whose_fault_it_is(error: Exception, what: str) -> None:
    assert lacks(error) == what


def test_another_version_of_the_package_is_refused_by_name() -> None:
    trial = {"run": "routing.runner:run", "config": DIGITS.model_dump_json()}
    assert run_of(trial) == DIGITS
    with pytest.raises(NodeFault, match=r"routing-sweeps .* is on node .*, 99\.0 on the driver's \(.*--allow-mixed"):
        run_of({**trial, "version": "99.0"})


def test_three_failures_of_one_kind_in_a_row_stop_the_sweep() -> None:
    stopping = Stopping(None)
    for failure in ("a", "a", None, "a", "a", "b", "a"):
        stopping.ended(failure)
    assert not stopping.should_stop()
    stopping.ended("a")
    stopping.ended("a")
    assert stopping.failure == "3 trials in a row failed alike: a"
    assert stopping.should_stop()
    patient = Stopping(None, keep_going=True)
    for _ in range(9):
        patient.ended("a")
    assert not patient.should_stop()
