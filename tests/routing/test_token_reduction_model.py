"""A transformer with a schedule of token reduction as a model: its ledger, its cost by hand, its settings and knob."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.models import build_model
from routing.models.vit.classifier import TransformerClassifier
from routing.models.vit.schedule import Schedule
from routing.models.vit.setting import Pruning
from routing.models.vit.token_pruning import pruned_by
from routing.models.vit.token_selection import Selection
from tests.routing.literal_reduction import METHODS

SCHEDULES: dict[str, Any] = {"tome": 4, "amod": {1: 0.5, 3: 0.25}}
"""Where not named: {1: 0.7, 2: 12}."""
SMALL = {
    "model.name": "vit",
    "dataset.name": "digits",
    "dataset.input_size": 40,
    "model.patch_size": 5,
    "model.width": 16,
    "model.heads": 2,
    "model.depth": 4,
    "model.mlp": 32,
    "model.dropout": 0.0,
}


def classifier(**settings: Any) -> TransformerClassifier:
    torch.manual_seed(0)
    info = DataInfo("classification", 1, 40, 10, (0.5,), (0.5,))
    config = RunConfig.from_dict({**SMALL, **{f"model.pruning.{key}": value for key, value in settings.items()}})
    model = build_model(config.model, info).eval()
    assert isinstance(model, TransformerClassifier)
    return model


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_ledger_is_what_was_executed_along_the_curve(method: str) -> None:
    schedule = SCHEDULES.get(method, {1: 0.7, 2: 12})
    model, batch = classifier(method=method, schedule=schedule), torch.randn(3, 1, 40, 40)
    default = model(batch).prediction
    with pruned_by(model.core, model.pruning):
        assert torch.allclose(model.core(batch), default, atol=1e-6)
    assert measure(model, batch).executed_per_image.double().mean().item() == model.expected_flops()
    assert model.expected_flops() < model.dense_flops
    values = model.knob_values([batch])
    assert len(values) > 3
    for value, output in zip(values, model.along_knob(batch, values), strict=True):
        model.set_knob(value)
        assert model.default_knob_value == value
        assert torch.allclose(model(batch).prediction, output.prediction, atol=1e-6)
        report = measure(model, batch)
        assert torch.equal(report.executed_per_image, report.closed_form_per_image)


def test_cost_of_a_tome_and_an_evit_block_by_hand() -> None:
    t, d, m, e = 65, 16, 32, 8
    whole = classifier().block_multiply_adds
    # tome: 65 tokens, 33 even ones by 32 odd ones; 55 go through the MLP and on, 28 by 27
    tome = 64 * 25 * d + 10 * d
    for tokens, left in ((65, 55), (55, 45), (45, 35), (35, 25)):
        pairs = ((tokens + 1) // 2) * (tokens // 2) * e
        tome += 4 * tokens * d * d + 2 * tokens**2 * d + pairs + left * 2 * d * m
    assert classifier(method="tome", schedule=10).expected_flops() == tome
    # evit in block 1: the row of CLS, 32 of 64 patches fused; 34 tokens from its MLP on
    evit = (
        64 * 25 * d
        + 10 * d
        + whole(t)
        + 4 * t * d * d
        + 2 * t * t * d
        + t * d
        + 32 * d
        + 34 * 2 * d * m
        + 2 * whole(34)
    )
    assert classifier(method="evit", schedule={1: 0.5}).expected_flops() == evit
    # amod: blocks 1 and 3 take 33 of 65 tokens, nothing else costs anything
    amod = 64 * 25 * d + 10 * d + 2 * whole(t) + 2 * whole(33)
    assert classifier(method="amod", schedule={1: 0.5, 3: 0.5}).expected_flops() == amod


def test_settings_of_a_schedule() -> None:
    model = classifier(method="evit", schedule={1: 0.7, 3: 0.5})
    assert model.default_knob_value == "schedule=0.7@1/0.5@3"
    assert model.knob_values([])[0] == "schedule=0.4@1/0.4@3"
    grid = {"grid.schedule": [{1: 0.5}, {2: 0.5}, 8], "grid.keep_rate": [0.5, 0.75]}
    values = classifier(method="importance_diversity", **grid).knob_values([])
    assert values[:2] == [f"schedule={rate}@1,k_anchors=10,alpha=0.5" for rate in (0.5, 0.75)]
    assert values[4] == "schedule=32/3,k_anchors=10,alpha=0.5"  # 64 * .5 over blocks 1 to 3
    shares = classifier(**{"grid.keep_rate": [0.5, 0.75]}).knob_values([])
    assert shares == [f"k_anchors={k},top_m={m},alpha=0.5,start_layer=1" for k, m in ((5, 27), (8, 40))] + ["none"]
    one = Pruning(Selection(5, 20), 2, "diversity", Schedule.of(4))
    assert one.with_text("top_m=3").schedule is None
    assert one.with_text("alpha=0.1").schedule == Schedule.of(4)
    base = RunConfig.from_dict({**SMALL, "model.pruning.schedule": {1: 0.7, 3: 0.5}})
    assert base.replace(**{"model.pruning.schedule": {2: 0.5}}).model.pruning.schedule == "0.5@2"  # type: ignore[attr-defined]
    config = RunConfig.from_dict({**SMALL, "model.pruning.method": "tome", "model.pruning.schedule": 8})
    assert RunConfig.from_dict(config.model_dump(mode="json")) == config
    with pytest.raises(InputError, match=r"pruning.method tome needs pruning.schedule \(valid: \{4: 0.7"):
        classifier(method="tome")
    with pytest.raises(InputError, match=r"model.pruning.schedule: block 1 keeps 0 of its patches"):
        classifier(method="evit", schedule={1: 0})
    with pytest.raises(InputError, match=r"attention under pruning.method 'evit' cannot be drawn"):
        model.attention_layers(torch.zeros(1, 1, 40, 40), model.pruning)


def test_rates_that_a_count_does_not_reach() -> None:
    with pytest.raises(InputError, match=r"grid.keep_rate: keep rate 0.05: tome leaves 9 of 64 patches"):
        classifier(method="tome", schedule=8, **{"grid.keep_rate": [0.05]})
    with pytest.raises(InputError, match=r"grid.keep_rate: keep rate 0.01: .*block 3 would leave 1 of"):
        classifier(method="evit", schedule={3: 0.5}, **{"grid.keep_rate": [0.5, 0.01]})
    values = classifier(method="tome", schedule=8, **{"grid.keep_rate": [0.5, 1.0]}).knob_values([])
    assert values == ["schedule=8", "none"]
    for key, value in (("top_m", [5]), ("start_layer", [2])):
        for schedule in ({"schedule": 8}, {"grid.schedule": [8]}):
            with pytest.raises(InputError, match=f"model.pruning.grid.{key} has no effect on a schedule"):
                classifier(method="cls_attention", **schedule, **{f"grid.{key}": value})
