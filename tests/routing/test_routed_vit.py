"""Mixture-of-Depths: which tokens a routed block takes, that the others wait, what it costs, and its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from routing.config.run import RunConfig
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.models.vit.hosts import OwnHost
from routing.models.vit.network import Block
from routing.models.vit.opened import run_received
from routing.models.vit.positions import Positions
from routing.models.vit.routed import RoutedVit
from routing.runner import run
from tests.routing.photographs import built, draw_photographs, exported

SHAPE: dict[str, Any] = {"patch_size": 8, "width": 32, "mlp": 48, "depth": 4}


def routed(**keys: Any) -> RoutedVit:
    torch.manual_seed(0)
    model = built(name="routed_vit", **{**SHAPE, **keys})
    assert isinstance(model, RoutedVit)
    return model


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_at_full_capacity_it_is_the_plain_transformer() -> None:
    model = routed(capacity=1.0)
    with torch.no_grad():
        torch.testing.assert_close(model(images()).prediction, model.core(images()).float())


def test_the_attention_received_is_the_mean_of_the_attention_used() -> None:
    core = routed().core
    block = core.blocks[0]
    tokens = torch.randn(2, 17, 32)
    with torch.no_grad():
        out, received_BT = run_received(OwnHost(core), block, tokens, Positions())
        torch.testing.assert_close(out, block(tokens))
    # rows sum to 1, so what all tokens receive adds up to 1
    torch.testing.assert_close(received_BT.sum(dim=1), torch.ones(2))


def test_the_best_patches_and_the_class_token_pass_and_the_others_wait() -> None:
    model = routed(capacity=0.25)  # 4 of 16 patches
    block = model.core.blocks[1]
    assert isinstance(block, Block)
    tokens = torch.randn(1, 17, 32)
    received = torch.zeros(1, 17)
    received[0, [0, 3, 7, 8, 16]] = torch.tensor([9.0, 1.0, 2.0, 3.0, 4.0])
    with torch.no_grad():
        out = model._routed(block, 1, tokens, received, 4, "attention")
        taken = [0, 3, 7, 8, 16]
        torch.testing.assert_close(out[:, taken], block(tokens[:, taken]))
    waiting = [token for token in range(17) if token not in taken]
    assert torch.equal(out[:, waiting], tokens[:, waiting])


@pytest.mark.parametrize("scores", ["attention", "learned", "random", "permuted"])
def test_every_capacity_costs_what_it_executes(scores: str) -> None:
    model = routed(scores=scores, capacity=0.5)
    plain = built(name="vit", **SHAPE).expected_flops()
    routers = 2 * 17 * 32 if scores == "learned" else 0
    assert model.dense_flops == plain + routers
    costs = []
    for value in [*model.knob_values([images()]), 0.5]:
        model.set_knob(value)
        report = measure(model, images())
        costs.append(report.executed_per_image[0].item())
        assert costs[-1] == model.expected_flops()
    assert costs[:-1] == sorted(costs[:-1])
    assert costs[-2] == model.dense_flops


def test_training_is_sparse_and_a_learned_score_has_a_gradient() -> None:
    model = routed(scores="learned", capacity=0.25).train()
    seen: list[int] = []
    model.core.blocks[1].register_forward_pre_hook(lambda block, args: seen.append(args[0].shape[1]))
    model(images()).prediction.square().sum().backward()
    assert seen == [5]
    gradient = model.routers[0].weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_a_permuted_choice_is_that_of_another_image() -> None:
    model = routed(capacity=0.25)
    received = torch.rand(3, 17)
    own = model._scores(1, received, "attention")
    assert torch.equal(model._scores(1, received, "permuted"), own.roll(1, dims=0))


def test_no_block_to_route_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match=r"model.every 5: with model.depth 4 no block is routed \(valid: 2 to 4\)"):
        routed(every=5)


def test_a_run_has_a_curve_and_a_certificate(folder: Path) -> None:
    draw_photographs(folder / "images")
    keys = {
        "dataset.name": "image_folder",
        "dataset.root": str(folder / "images"),
        "dataset.input_size": 16,
        "dataset.val_fraction": 0.25,
        "model.name": "routed_vit",
        **{f"model.{key}": value for key, value in SHAPE.items()},
        "model.patch_size": 4,
        "training.batch_size": 12,
    }
    record = run(RunConfig.from_dict(keys))
    assert record.certificate is not None
    assert {"score_random", "score_permuted", "score_full", "state"} <= set(record.certificate)
    assert (record.certificate["rate"], len(record.points)) == (0.5, 9)


def test_an_exported_graph_predicts_the_same() -> None:
    model, batch = routed(capacity=0.25), images()
    with torch.no_grad():
        torch.testing.assert_close(exported(model, batch), model(batch).prediction, atol=1e-4, rtol=1e-4)
