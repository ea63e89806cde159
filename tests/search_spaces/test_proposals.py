"""(seed, k) proposals of every shipped sampler, held as recorded numbers: a change of one breaks every study resumed.

``python tests/search_spaces/test_proposals.py NAME...`` records these anew; only a change that is announced may do so.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from routing.objectives import Objective
from search_spaces.search.proposer import Proposer
from search_spaces.study.schema import Parameter, SamplerSection
from search_spaces.study.space import Space

RECORDED = Path(__file__).with_name("proposals.json")
COUNT = 20
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "qmc": ("qmc", {}),
    "qmc_unscrambled": ("qmc", {"scramble": False}),
    "grid": ("grid", {"points": 3}),
    "tpe": ("tpe", {"n_startup_trials": 5}),
    "tpe_group": ("tpe", {"n_startup_trials": 5, "group": True, "n_ei_candidates": 12}),
    "nsga2": ("nsga2", {"population_size": 6, "mutation_prob": 0.2}),
    "gp": ("gp", {"n_startup_trials": 15}),
    "auto": ("auto", {"n_startup_trials": 5, "gp_trials": 9}),
}
SPACE = {
    "model.name": Parameter(choice=("attention_routing", "full_compute", "no_routing")),
    "model.router.mode": Parameter(choice=("top_k", "random"), when={"model.name": ("attention_routing",)}),
    "model.router.temperature": Parameter(
        float=(0.1, 3.0), log=True, when={"model.router.mode": ("top_k",), "model.name": ("attention_routing",)}
    ),
    "training.learning_rate": Parameter(float=(1e-4, 1e-1), log=True),
    "training.weight_decay": Parameter(float=(0.0, 0.5), step=0.1),
    "training.batch_size": Parameter(int=(16, 128), step=16),
}
OBJECTIVES = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.0),
    Objective(metric="flops", goal="minimize", reference=1e9),
)


def proposals(name: str) -> list[dict[str, Any]]:
    """Return the settings a sampler proposes; the second trial is given, some settings refused, some trials stopped."""
    sampler, options = SAMPLERS[name]
    section = SamplerSection(name=sampler, seed=11, options=options)
    proposer = Proposer(Space(SPACE, {}), OBJECTIVES, section)
    settings: list[dict[str, Any]] = []
    while len(settings) < COUNT:
        given = {"model.name": "no_routing"} if len(settings) == 1 else None
        proposal = proposer.propose(lambda v: "too small" if v["training.batch_size"] == 16 else None, given, number=1)
        assert proposal is not None
        settings.append(proposal.values)
        last = _measured(proposal.values)
        first = [last[0] / 2, 1.1 * last[1]]
        state = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED][len(settings) % 3]
        state = TrialState.FAIL if len(settings) == 5 else state
        curve = {1: first} if state == TrialState.PRUNED else {1: first, 3: last}
        proposer.observe(proposal.handle, state, last if state == TrialState.COMPLETE else None, curve)
    return settings


def _measured(values: dict[str, Any]) -> list[float]:
    """Return an accuracy that likes a rate of 0.01 and a cost that large batches and the full model raise."""
    rate = math.log10(values["training.learning_rate"]) + 2
    cost = {"attention_routing": 2e6, "full_compute": 8e6, "no_routing": 1e6}[values["model.name"]]
    accuracy = 0.9 - 0.1 * rate**2 - 0.2 * values["training.weight_decay"] + 0.01 * math.log(cost)
    return [accuracy, cost * (1 + values["training.batch_size"] / 256)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_proposals_are_the_recorded_ones(name: str) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))[name]
    found = proposals(name)
    assert [list(setting) for setting in found] == [list(setting) for setting in recorded]
    tolerance = 1e-6 if name in ("gp", "auto") else 1e-12  # a process is fitted by iteration, whose last digits vary
    for number, (setting, expected) in enumerate(zip(found, recorded, strict=True)):
        for key, value in expected.items():
            wanted = pytest.approx(value, rel=tolerance) if isinstance(value, float) else value
            assert setting[key] == wanted, f"proposal {number}, {key}"


if __name__ == "__main__":
    import sys

    found = json.loads(RECORDED.read_text(encoding="utf-8"))
    found |= {name: proposals(name) for name in sys.argv[1:]}
    entries = [
        f" {json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(setting)}" for setting in found[name]) + "\n ]"
        for name in SAMPLERS
    ]
    RECORDED.write_text("{\n" + ",\n".join(entries) + "\n}\n", encoding="utf-8")
