"""Every router and control: what it routes, what varies in training, what a budget sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from routing.config.registry import ROUTERS
from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.models import build_model
from routing.models.grid import PatchGrid
from routing.models.patch.parts import Encoded
from routing.models.patch.routers import Router

GRID = PatchGrid(input_size=24, grid=4, margin=2)  # 16 patches of 6 pixels, cropped with 2 around
THRESHOLDED = ("learnable_threshold", "sigmoid_gate", "gumbel", "quantile_threshold")
SHARED = ("top_k", "random", "permuted", "centre", "edge_energy", "oracle", "post_hoc")


def router(mode: str, **settings: float) -> Router:
    built: Router = ROUTERS.get(mode)(grid=GRID, **{"target_ratio": 0.25, **settings})
    return built


def encoded(batch_size: int = 6, seed: int = 0) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch_size, 2, 24, 24, generator=generator)
    scores_BN = torch.randn(batch_size, 16, generator=generator)
    corners = torch.randint(0, 24 - 9, (batch_size, 2), generator=generator)
    boxes = torch.cat([corners, torch.full((batch_size, 2), 9)], dim=1)
    return Encoded(scores_BN, GRID.view(images), {"box": boxes})


def routed(module: Router, seen: Encoded) -> Tensor:
    return module.decide(module.evidence(seen)).hard_BN


def test_every_mode_is_tested_here() -> None:
    assert set(ROUTERS) == {*THRESHOLDED, *SHARED}


@pytest.mark.parametrize("mode", list(ROUTERS))
@torch.no_grad()
def test_fixed_in_evaluation_whatever_the_random_state(mode: str) -> None:
    module, seen = router(mode).eval(), encoded()
    torch.manual_seed(0)
    first = routed(module, seen)
    torch.manual_seed(99)
    assert torch.equal(routed(module, seen), first)
    assert first.dtype == torch.bool
    assert first.shape == (6, 16)


@pytest.mark.parametrize(("mode", "settings"), [("random", {}), ("gumbel", {}), ("top_k", {})])
def test_only_random_parts_vary_in_training(mode: str, settings: dict[str, float]) -> None:
    module, seen = router(mode, **settings).train(), encoded()
    same = torch.equal(routed(module, seen), routed(module, seen))
    assert same == (mode == "top_k")


@pytest.mark.parametrize("mode", SHARED)
def test_a_share_is_the_same_number_of_patches_in_every_image(mode: str) -> None:
    module, seen = router(mode).eval(), encoded()
    assert (routed(module, seen).sum(1) == 4).all()  # 0.25 of 16
    module.set_knob(0.5)
    assert (routed(module, seen).sum(1) == 8).all()
    assert module.default_knob_value == 0.5
    assert (module.at_knob(module.evidence(seen), 1e-6).hard_BN.sum(1) == 1).all()


def test_expected_compute_is_of_whole_patches_as_they_run() -> None:
    """A share of 0.01 of 25 patches is one patch, and one patch is what the ledger will count."""
    keys = {"model.router.mode": "top_k", "model.router.budget.unit": "ratio", "model.router.budget.target": 0.01}
    config = RunConfig.from_dict(keys)
    model = build_model(config.model, config.dataset.info())
    assert model.nominal_units()["big"] == 1


@pytest.mark.parametrize("target", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_share_between_two_counts_is_expected_as_it_is_executed(target: float) -> None:
    """Half a patch of 25 is rounded as the stored float32 has it: 0.1 is a little more than that."""
    keys = {"model.router.mode": "top_k", "model.router.budget.unit": "ratio", "model.router.budget.target": target}
    config = RunConfig.from_dict(keys)
    model = build_model(config.model, config.dataset.info()).eval()
    with torch.no_grad():
        executed = model(torch.randn(2, 1, 40, 40)).units_executed["big"]
    assert executed.tolist() == [model.nominal_units()["big"]] * 2


def test_random_routes_every_patch_equally_often() -> None:
    torch.manual_seed(0)
    module = router("random").train()
    often = torch.stack([routed(module, encoded(64)).float().mean(0) for _ in range(40)]).mean(0)
    assert often.sum() == pytest.approx(4)
    assert (often - 0.25).abs().max() < 0.04  # 2560 draws: four standard errors are 0.034


def test_gumbel_routes_with_the_probability_of_the_sigmoid() -> None:
    torch.manual_seed(0)
    module, seen = router("gumbel", threshold_init=0.5).train(), encoded(1)
    share = torch.stack([routed(module, seen).float() for _ in range(4000)]).mean(0)
    expected = torch.sigmoid(seen.scores_BN - 0.5)
    assert (share - expected).abs().max() < 0.032  # four standard errors of a share of 4000


@pytest.mark.parametrize(
    ("mode", "settings"), [("gumbel", {}), ("sigmoid_gate", {}), ("learnable_threshold", {"threshold_jitter": 2.0})]
)
def test_the_budget_sees_the_rate_of_inference_not_the_noise_of_training(mode: str, settings: dict[str, float]) -> None:
    module, seen = router(mode, threshold_init=0.3, **settings), encoded(256)
    rate = module.train().decide(seen.scores_BN).rate()
    assert rate.item() == pytest.approx((seen.scores_BN >= 0.3).float().mean().item(), abs=1e-6)
    (gradient,) = torch.autograd.grad(rate, module.threshold)
    assert gradient.item() < 0


def test_jitter_moves_the_threshold_in_training_only() -> None:
    torch.manual_seed(0)
    module, seen = router("learnable_threshold", threshold_jitter=1.0), encoded(64)
    rates = torch.stack([module.train().decide(seen.scores_BN).hard_BN.float().mean() for _ in range(200)])
    assert rates.std() > 0.15
    # scores are standard normal, t = noise of the same spread: P(score >= t) is a half
    assert rates.mean() == pytest.approx(0.5, abs=0.08)
    assert torch.equal(module.eval().decide(seen.scores_BN).hard_BN, seen.scores_BN >= 0)


@pytest.mark.parametrize("mode", SHARED)
def test_jitter_without_a_threshold_is_refused(mode: str) -> None:
    with pytest.raises(InputError, match=r"threshold_jitter 0\.5: \w+ routes a fixed share .* \(valid: 0\)"):
        router(mode, threshold_jitter=0.5)


class TestQuantileThreshold:
    def test_the_first_batch_sets_it_and_training_meets_the_rate(self) -> None:
        module, scores_BN = router("quantile_threshold", threshold_init=50.0).train(), encoded(64).scores_BN + 7
        hard_BN = module.decide(scores_BN).hard_BN
        assert hard_BN.float().mean().item() == pytest.approx(0.25, abs=1 / scores_BN.numel())
        assert torch.equal(module.eval().decide(scores_BN).hard_BN, hard_BN)

    def test_it_follows_a_drift(self) -> None:
        module = router("quantile_threshold").train()
        for step in range(100):
            module.decide(encoded(64, seed=step).scores_BN + 0.01 * step)
        # lag of an exponential mean with momentum 0.9: nine steps of 0.01
        expected = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(0.75)) + 0.99 - 0.09
        assert module.threshold.item() == pytest.approx(expected.item(), abs=0.05)

    def test_evaluation_leaves_it_alone(self) -> None:
        module = router("quantile_threshold").train()
        module.decide(encoded().scores_BN)
        before = module.threshold.clone()
        module.eval().decide(encoded(seed=5).scores_BN + 100)
        assert torch.equal(module.threshold, before)

    @pytest.mark.parametrize(("ratio", "expected"), [(0.0001, 1), (1.0, 96)])
    def test_the_ends(self, ratio: float, expected: int) -> None:
        module = router("quantile_threshold", target_ratio=ratio).train()
        assert module.decide(encoded().scores_BN).hard_BN.sum() == expected


class TestControls:
    def test_permuted_is_the_choice_of_another_image(self) -> None:
        seen = encoded()
        permuted, own = routed(router("permuted"), seen), routed(router("top_k"), seen)
        assert torch.equal(permuted, own.roll(1, 0))
        assert not torch.equal(permuted, own)

    def test_centre_takes_the_four_patches_in_the_middle(self) -> None:
        hard_BN = routed(router("centre"), encoded())
        assert hard_BN[0].nonzero().squeeze(1).tolist() == [5, 6, 9, 10]  # rows and columns 1 and 2 of 4
        assert (hard_BN == hard_BN[0]).all()

    def test_edge_energy_by_hand(self) -> None:
        images = torch.zeros(1, 1, 24, 24)
        images[0, 0, 6:12, 12:18] = torch.arange(6.0) * 3  # cell 1, 2: steps of 3 to the right
        images[0, 0, 18:24, 0] = 1.0  # cell 3, 0: one step of 1, then nothing
        energy = router("edge_energy").evidence(Encoded(torch.zeros(1, 16), GRID.view(images)))
        expected = torch.zeros(4, 4)
        expected[1, 2] = 9.0
        expected[3, 0] = 1 / 5  # five neighbours per row, one differs
        torch.testing.assert_close(energy.view(4, 4), expected)  # the jump over a cell's edge counts for neither

    def test_oracle_takes_the_patches_with_most_of_the_box(self) -> None:
        images = torch.zeros(2, 1, 24, 24)
        boxes = torch.tensor([[6, 6, 12, 12], [0, 12, 6, 12]])  # four cells exactly; two cells exactly
        hard_BN = routed(router("oracle"), Encoded(torch.zeros(2, 16), GRID.view(images), {"box": boxes}))
        assert hard_BN[0].nonzero().squeeze(1).tolist() == [5, 6, 9, 10]
        assert hard_BN[1, [2, 3]].all()

    def test_oracle_needs_a_data_set_that_knows_the_box(self) -> None:
        info = DataInfo("classification", 3, 32, 10, (0.5,) * 3, (0.2,) * 3, patch_grid_size=4)
        section = RunConfig.from_dict({"model.router.mode": "oracle"}).model
        with pytest.raises(InputError, match=r"'oracle' needs the box of every image.*nothing but the pixels"):
            build_model(section, info)


@pytest.mark.parametrize("mode", list(ROUTERS))
@torch.no_grad()
def test_knob_values_cover_the_routing_ratios(mode: str) -> None:
    module, seen = router(mode).eval(), encoded(200)
    evidence_BN = module.evidence(seen)
    ratios = [module.at_knob(evidence_BN, v).hard_BN.float().mean().item() for v in module.knob_values(evidence_BN)]
    assert ratios == sorted(ratios)
    assert ratios[0] <= 0.07
    assert ratios[-1] == 1.0
    assert len(ratios) >= 8


@pytest.mark.parametrize("kind", ["squared", "hinge", "l1", "none"])
def test_budget_losses_by_hand(kind: str) -> None:
    from routing.models.patch.budget import BudgetLoss

    loss = BudgetLoss(kind, weight=10.0, target=0.3)
    rate = torch.tensor([0.5, 0.1])
    expected: dict[str, Any] = {
        "squared": [10 * 0.2**2, 10 * 0.2**2],
        "hinge": [2.0, 0.0],
        "l1": [5.0, 1.0],
        "none": [0.0, 0.0],
    }
    torch.testing.assert_close(torch.stack([loss(value) for value in rate]), torch.tensor(expected[kind]))
