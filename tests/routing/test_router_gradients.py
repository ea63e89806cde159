"""Gradients of scores and threshold against central differences of the soft objective, for every mode and form.

The straight-through gradient is the true gradient of a surrogate: the hard decision stays a constant and the sigmoid's
*change* is added to it. The surrogate is written here a second time, in float64 and without autograd.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.models import build_model
from routing.models.patch.parts import Encoded
from routing.models.patch.routed import AttentionRouting

INFO = DataInfo("classification", 1, 12, 3, (0.1,), (0.3,), patch_grid_size=3, patch_margin=1)
TARGETS = torch.tensor([0, 1, 2, 1])
THRESHOLD, TEMPERATURE, WEIGHT = 0.2, 0.7, 5.0
FORMS = ("counterfactual", "dense", "sparse")


def routed_model(mode: str, form: str, aggregator: str) -> AttentionRouting:
    torch.manual_seed(0)
    keys = {
        "model.router.mode": mode,
        "model.router.training": form,
        "model.router.threshold_init": THRESHOLD,
        "model.router.temperature": TEMPERATURE,
        "model.router.budget": {"target": 0.4, "unit": "ratio", "weight": WEIGHT},
        "model.aggregator": aggregator,
        "model.experts": {"big": [8], "small": [3], "width": 5},
    }
    model = build_model(RunConfig.from_dict(keys).model, INFO)
    assert isinstance(model, AttentionRouting)
    return model.double().train()


def scene() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(4, 1, 12, 12, generator=generator, dtype=torch.float64)
    return images, torch.randn(4, 9, generator=generator, dtype=torch.float64)


def autograd(model: AttentionRouting, images: Tensor, scores_BN: Tensor) -> tuple[Tensor, Tensor | None]:
    scores_BN = scores_BN.clone().requires_grad_()
    encoded = Encoded(scores_BN, model.grid.view(images))
    torch.manual_seed(7)  # the noise of gumbel
    output = model.train_form(encoded, model.decide(model.evidence(encoded)))
    loss = F.cross_entropy(output.prediction, TARGETS) + sum(output.losses.values())
    threshold = getattr(model.router, "threshold", None)
    if isinstance(threshold, torch.nn.Parameter):
        return torch.autograd.grad(loss, (scores_BN, threshold))
    return torch.autograd.grad(loss, scores_BN)[0], None


def surrogate(model: AttentionRouting, mode: str, form: str, images: Tensor, at: Tensor) -> Callable[..., float]:
    """Return the soft objective as a plain function of scores and threshold, expanded around scores ``at``."""
    grid = model.grid
    patches = grid.all(images).view(4, 9, -1)
    noise = torch.zeros_like(at)
    if mode == "gumbel":
        torch.manual_seed(7)
        noise = torch.rand_like(at).clamp(1e-6, 1 - 1e-6).logit()
    kth = at.sort(dim=1, descending=True).values[:, 3:4]  # 0.4 of 9 patches is 4
    hard = (at >= kth) if mode == "top_k" else (at + noise >= THRESHOLD)

    def soft(scores: Tensor, threshold: float) -> Tensor:
        return torch.sigmoid((scores - (kth if mode == "top_k" else threshold)) / TEMPERATURE)

    @torch.no_grad()
    def objective(scores: Tensor, threshold: float) -> float:
        change = soft(scores + noise, threshold) - soft(at + noise, THRESHOLD)
        gate = (soft(scores, threshold) if mode == "sigmoid_gate" else hard + change).unsqueeze(-1)
        big, small, on = model.big(patches), model.small(patches), hard.unsqueeze(-1)
        if form == "dense":
            features = small + gate * (big - small)
        elif form == "counterfactual":
            features = torch.where(on, small + gate * (big - small), small)
        else:
            features = torch.where(on, gate * big, (1 - gate) * small)
        weights = scores.softmax(1) if model.aggregator.weights(scores).std() > 0 else torch.full_like(scores, 1 / 9)
        loss = F.cross_entropy(model.head((features * weights.unsqueeze(-1)).sum(1)), TARGETS)
        if mode != "top_k":  # the rate of inference: no noise
            rate = ((at >= THRESHOLD) + soft(scores, threshold) - soft(at, THRESHOLD)).mean()
            loss = loss + WEIGHT * (rate - 0.4) ** 2
        return float(loss)

    return objective


@pytest.mark.parametrize("aggregator", ["score_weighted", "mean"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["learnable_threshold", "sigmoid_gate", "gumbel", "top_k"])
def test_gradients_are_those_of_the_soft_objective(mode: str, form: str, aggregator: str) -> None:
    model = routed_model(mode, form, aggregator)
    images, scores = scene()
    of_scores, of_threshold = autograd(model, images, scores)
    objective, step = surrogate(model, mode, form, images, scores), 1e-5
    expected = torch.zeros_like(scores)
    for index in range(scores.numel()):
        moved = torch.zeros(scores.numel(), dtype=torch.float64)
        moved[index] = step
        up, down = (objective(scores + sign * moved.view_as(scores), THRESHOLD) for sign in (1, -1))
        expected.view(-1)[index] = (up - down) / (2 * step)
    torch.testing.assert_close(of_scores, expected, rtol=1e-4, atol=2e-7)
    assert (of_scores != 0).sum() > 4
    if of_threshold is not None:
        up, down = (objective(scores, THRESHOLD + sign * step) for sign in (1, -1))
        assert of_threshold.item() == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=2e-7)
        assert abs(of_threshold.item()) > 1e-4


@pytest.mark.parametrize("mode", ["random", "permuted", "centre", "edge_energy"])
def test_a_control_teaches_the_scores_by_the_pooling_alone(mode: str) -> None:
    images, scores = scene()
    weighted, _ = autograd(routed_model(mode, "dense", "score_weighted"), images, scores)
    assert weighted.abs().max() > 0
    model = routed_model(mode, "dense", "mean")
    encoded = Encoded(scores.clone().requires_grad_(), model.grid.view(images))
    output = model.train_form(encoded, model.decide(model.evidence(encoded)))
    (averaged,) = torch.autograd.grad(output.prediction.sum(), encoded.scores_BN, allow_unused=True)
    assert averaged is None or averaged.abs().max() == 0
