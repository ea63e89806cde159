"""Routed conv experts: what a row is, what each branch costs and sees, and that all routers and controls fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from routing.config.registry import ROUTERS
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.models.patch.conv import RoutedConv
from tests.routing.photographs import built, exported, photograph_info

SMALL: dict[str, Any] = {"encoder.channels": 8, "experts.channels": [8, 16], "experts.width": 16}


def routed(**keys: Any) -> RoutedConv:
    torch.manual_seed(0)
    model = built(name="routed_conv", **{**SMALL, **keys})
    assert isinstance(model, RoutedConv)
    return model


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_conv_expert_by_hand() -> None:
    model = routed()
    # cells of 8 pixels without margin; 3x3 convolutions at 8 x 8 and, halved, at 4 x 4; 16 -> 16; trunk 8 -> 16
    assert model.branch_multiply_adds("big") == 64 * 9 * 3 * 8 + 16 * 9 * 8 * 16 + 16 * 16 + 8 * 16
    assert model.branch_multiply_adds("small") == 8 * 16


def test_the_small_branch_sees_the_trunk_and_the_big_one_adds_the_pixels() -> None:
    model, batch = routed(), images()
    with torch.no_grad():
        rows = model.encode(batch).pixels
        assert rows.shape == (3 * 16, 8 + 3 * 8 * 8)
        other = rows.clone()
        other[:, 8:] += 1.0
        assert torch.equal(model.expert("small")(rows), model.expert("small")(other))
        assert not torch.allclose(model.expert("big")(rows), model.expert("big")(other))
        assert torch.equal(rows[17, 8:], batch[1, :, :8, 8:16].flatten())  # image 1, first row, second column


@pytest.mark.parametrize("mode", [name for name in ROUTERS if name != "oracle"])
def test_every_router_trains_and_executes_what_it_says(mode: str) -> None:
    model = routed(**{"router.mode": mode})
    report = measure(model, images())
    assert report.executed_per_image.tolist() == report.closed_form_per_image.tolist()
    output = model.train()(images())
    sum([output.prediction.square().sum(), *output.losses.values()]).backward()
    assert model.encoder.layers[0].weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_routing_everything_is_full_conv_and_nothing_cheap_conv() -> None:
    model = routed(**{"router.mode": "top_k"})
    full, cheap = built(name="full_conv", **SMALL), built(name="cheap_conv", **SMALL)
    state = model.state_dict()
    for other in (full, cheap):
        other.load_state_dict({key: state[key] for key in other.state_dict()})
    small = model.branch_multiply_adds("small")
    assert full.expected_flops() == model.dense_flops
    assert cheap.expected_flops() == model.cheapest_flops == model.flops_at(0) >= 16 * small
    with torch.no_grad():
        model.set_knob(1.0)
        torch.testing.assert_close(model(images()).prediction, full(images()).prediction)
        encoded = model.encode(images())
        nothing = model.router.at_knob(encoded.scores_BN, 1.0)
        nothing.hard_BN = torch.zeros_like(nothing.hard_BN)
        torch.testing.assert_close(model.dispatch(encoded, nothing).prediction, cheap(images()).prediction)


def test_a_patch_too_small_for_its_expert_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match=r"a patch of 4 pixels cannot be halved 3 times \(valid: at most 3 values"):
        built(photograph_info(16), **{"name": "routed_conv", "experts.channels": [8, 8, 8, 8]})


@pytest.mark.parametrize("mode", ["top_k", "post_hoc"])
def test_an_exported_graph_predicts_the_same(mode: str) -> None:
    model, batch = routed(**{"router.mode": mode}), images()
    with torch.no_grad():
        torch.testing.assert_close(exported(model, batch), model(batch).prediction, atol=1e-4, rtol=1e-4)
