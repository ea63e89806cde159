"""Truly conditional inference: equal to the masked form, and the big MLP never sees an unrouted patch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.models import build_model
from routing.models.patch.routed import AttentionRouting, PatchModel
from routing.models.patch.routers import RoutingDecision

INFO = DataInfo("classification", 2, 24, 5, (0.1, 0.2), (0.3, 0.4), patch_grid_size=4, patch_margin=3)


@pytest.fixture
def model() -> AttentionRouting:
    torch.manual_seed(0)
    keys = {"model.experts.big": [24], "model.experts.width": 12, "model.router.budget.unit": "ratio"}
    config = RunConfig.from_dict(keys)
    built = build_model(config.model, INFO)
    assert isinstance(built, AttentionRouting)
    return built.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 2, 24, 24, generator=torch.Generator().manual_seed(1))


def decision_of(hard_BN: Tensor) -> RoutingDecision:
    return RoutingDecision(hard_BN, hard_BN.float())


def masked_form(model: PatchModel, images: Tensor, hard_BN: Tensor) -> Tensor:
    """Both branches on every patch, then a mask: slow and obviously right."""
    encoded = model.encode(images)
    patches = model.grid.all(images).view(len(images), model.grid.num_patches, -1)
    features = torch.where(hard_BN.unsqueeze(-1), model.big(patches), model.small(patches))
    weights_BN = model.aggregator.weights(encoded.scores_BN)
    return model.head((features * weights_BN.unsqueeze(-1)).sum(1))


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "random": lambda noise: noise < 0.3,
    "nothing": lambda noise: noise < 0,
    "everything": lambda noise: noise < 2,
    "one image only": lambda noise: (torch.arange(len(noise)) == 2).unsqueeze(1).expand_as(noise),
}


@pytest.mark.parametrize("name", MASKS)
@torch.no_grad()
def test_conditional_equals_masked(model: AttentionRouting, images: Tensor, name: str) -> None:
    hard_BN = MASKS[name](torch.rand(6, 16, generator=torch.Generator().manual_seed(2)))
    output = model.dispatch(model.encode(images), decision_of(hard_BN))
    torch.testing.assert_close(output.prediction, masked_form(model, images, hard_BN), rtol=1e-5, atol=1e-5)
    assert torch.equal(output.units_executed["big"], hard_BN.sum(1))
    assert torch.equal(output.units_executed["small"], (~hard_BN).sum(1))


def test_the_training_form_has_the_value_of_the_conditional_one(model: AttentionRouting, images: Tensor) -> None:
    encoded = model.encode(images)
    trained = model.train_form(encoded, model.decide(encoded.scores_BN))
    with torch.no_grad():
        conditional = model(images)
    torch.testing.assert_close(trained.prediction, conditional.prediction, rtol=1e-5, atol=1e-5)
    assert torch.equal(trained.units_executed["big"], conditional.units_executed["big"])


class RowCounter(nn.Module):
    """Remembers how many rows went through a branch, and which ones."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, rows: Tensor) -> Any:
        self.seen.append(rows.detach().clone())
        return self.inner(rows)


@torch.no_grad()
def test_the_big_mlp_sees_routed_patches_only(model: AttentionRouting, images: Tensor) -> None:
    hard_BN = torch.rand(6, 16, generator=torch.Generator().manual_seed(3)) < 0.25
    counters = {branch: RowCounter(getattr(model, branch)) for branch in ("big", "small")}
    model.expert = lambda branch: counters[branch]  # type: ignore[method-assign,assignment,return-value]
    model.dispatch(model.encode(images), decision_of(hard_BN))
    every_patch = model.grid.all(images)
    assert torch.equal(torch.cat(counters["big"].seen), every_patch[hard_BN.flatten()])
    assert torch.equal(torch.cat(counters["small"].seen), every_patch[~hard_BN.flatten()])


@torch.no_grad()
def test_nothing_routed_never_calls_the_big_mlp(model: AttentionRouting, images: Tensor) -> None:
    counter = RowCounter(model.big)
    model.expert = lambda branch: counter if branch == "big" else model.small  # type: ignore[method-assign,assignment,return-value]
    model.dispatch(model.encode(images), decision_of(torch.zeros(6, 16, dtype=torch.bool)))
    assert counter.seen == []


@pytest.mark.parametrize("name", ["full_compute", "cheap_compute", "no_routing"])
@torch.no_grad()
def test_baselines_use_one_branch_for_all(images: Tensor, name: str) -> None:
    torch.manual_seed(0)
    model = build_model(RunConfig.from_dict({"model.name": name}).model, INFO).eval()
    assert isinstance(model, PatchModel)
    expected = {"full_compute": "big", "cheap_compute": "small", "no_routing": "big"}[name]
    assert list(model(images).units_executed) == [expected]
    assert not hasattr(model, {"big": "small", "small": "big"}[expected])
    scores = model.encode(images).scores_BN
    weights = torch.full_like(scores, 1 / 16) if name == "no_routing" else scores.softmax(1)
    features = getattr(model, expected)(model.grid.all(images)).view(6, 16, -1)
    reference = model.head((features * weights.unsqueeze(-1)).sum(1))
    torch.testing.assert_close(model(images).prediction, reference, rtol=1e-5, atol=1e-5)
