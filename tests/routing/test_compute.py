"""The compute ledger: executed equals closed form exactly, torch's own counter agrees, nothing counts as 0 unsaid."""

from __future__ import annotations

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.evaluation.compute import ComputeError, count_module, expected_flops, measure
from routing.models import build_model
from routing.models.patch.section import FullComputeSection

INFO = DataInfo("classification", 1, 40, 10, (0.1,), (0.2,), patch_grid_size=5, patch_margin=4)
MODELS = {
    "attention_routing": {"model.name": "attention_routing"},
    "top_k": {"model.name": "attention_routing", "model.router.mode": "top_k"},
    "random": {"model.name": "attention_routing", "model.router.mode": "random"},
    "full_compute": {"model.name": "full_compute"},
    "cheap_compute": {"model.name": "cheap_compute"},
    "no_routing": {"model.name": "no_routing"},
}


def images(count: int = 7) -> Tensor:
    return torch.randn(count, 1, 40, 40, generator=torch.Generator().manual_seed(0))


def torch_count(module: nn.Module, *inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", MODELS)
def test_executed_is_the_closed_form_and_what_torch_counts(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(RunConfig.from_dict(MODELS[name]).model, INFO).eval()
    report = measure(model, images())
    assert torch.equal(report.executed_per_image, report.closed_form_per_image)
    assert sum(report.by_module.values()) == pytest.approx(float(report.executed_per_image.double().mean()), abs=0)
    assert int(report.executed_per_image.sum()) == pytest.approx(torch_count(model, images()), rel=0.01)


def test_full_compute_by_hand() -> None:
    model = build_model(RunConfig.from_dict({"model.name": "full_compute"}).model, INFO)
    # encoder: 40 / pool 2 = 20 -> stride 2 -> 10 -> stride 2 -> 5 -> 5
    encoder = 9 * 1 * 16 * 10 * 10 + 9 * 16 * 16 * 5 * 5 + 9 * 16 * 16 * 5 * 5
    scores = 25 * 16
    patch = (8 + 2 * 4) ** 2  # a cell of 8 with 4 pixels of context on every side
    big = 25 * (patch * 128 + 128 * 128 + 128 * 64)
    pooling, head = 25 * 64, 64 * 10
    assert measure(model, images(1)).executed_per_image.item() == encoder + scores + big + pooling + head


def test_images_that_route_more_cost_more() -> None:
    torch.manual_seed(0)
    model = build_model(RunConfig().model, INFO).eval()
    with torch.no_grad():
        routed = model(images()).units_executed["big"]
    difference = measure(model, images()).executed_per_image - measure(model, images()).executed_per_image.min()
    per_patch = (256 * 128 + 128 * 128 + 128 * 64) - (256 * 8 + 8 * 64)
    assert torch.equal(difference, (routed - routed.min()) * per_patch)


def test_expected_flops_before_training_is_the_budget() -> None:
    full = expected_flops(RunConfig.from_dict({"model.name": "full_compute"}))
    routed = expected_flops(RunConfig.from_dict({"model.router.budget.target": 0.4}))
    assert routed == pytest.approx(0.4 * full, rel=1e-9)


def test_expected_flops_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    expected_flops(RunConfig.from_dict({"model.experts.width": 17}))
    assert torch.equal(first, torch.rand(1))


def test_expected_flops_of_a_section_that_has_no_hash() -> None:
    class WithList(FullComputeSection):
        notes: list[str] = Field(default_factory=list)

    plain = RunConfig.from_dict({"model.name": "full_compute"})
    assert expected_flops(plain.model_copy(update={"model": WithList(name="full_compute")})) == expected_flops(plain)


class WithUnknownOperator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.bilinear(x, x, self.weight)


def test_an_operator_without_a_formula_raises() -> None:
    with pytest.raises(ComputeError, match=r"no formula for operator aten::_trilinear; it is not counted as 0"):
        count_module(WithUnknownOperator(), (torch.randn(1, 4),))


class Attention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def test_attention_is_counted() -> None:
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 6)
    assert count_module(Attention(), (q, k, v)) == 2 * 3 * 5 * 7 * (8 + 6)


def test_a_fused_encoder_layer_is_counted_and_left_as_it_was() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).train()
    tokens = torch.randn(1, 9, 16)
    # q, k, v, out: 4 d^2; MLP: 2 * 16 * 32; attention: two products of 9 x 9 x 16
    assert count_module(layer, (tokens,)) == 9 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 9 * 9 * 16
    assert layer.training
    assert torch.backends.mha.get_fastpath_enabled()
