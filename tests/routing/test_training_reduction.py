"""Training with token reduction, and distillation from the dense path or from given weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from routing.config.run import RunConfig
from routing.config.training import DistilSection, TrainingSection
from routing.data import DataInfo
from routing.errors import InputError
from routing.files.tensors import save_tensors
from routing.models import build_model
from routing.models.vit.classifier import TransformerClassifier
from routing.models.vit.hosts import host_of
from routing.models.vit.positions import Prefix
from routing.runner import run
from routing.training.distillation import Distillation, build_teacher, check_distillation
from routing.training.reduction import TokenReduction, check_reduction

VIT = {
    "model.name": "vit",
    "dataset.input_size": 40,
    "model.patch_size": 5,
    "model.width": 16,
    "model.heads": 2,
    "model.depth": 3,
    "model.mlp": 32,
}
EVIT = {"model.pruning.method": "evit", "model.pruning.schedule": {1: 0.5}}
REDUCED = {**VIT, **EVIT, "training.reduce_tokens": True}


def classifier(**settings: Any) -> TransformerClassifier:
    torch.manual_seed(0)
    config = RunConfig.from_dict({**VIT, **settings})
    model = build_model(config.model, DataInfo("classification", 1, 40, 10, (0.5,), (0.5,)))
    assert isinstance(model, TransformerClassifier)
    return model


def images() -> Tensor:
    return torch.randn(4, 1, 40, 40, generator=torch.Generator().manual_seed(1))


def losses(tiny: dict[str, Any], folder: Path | None = None, **settings: Any) -> dict[str, Any]:
    config = RunConfig.from_dict({**tiny, "evaluation.operating_points": False, "training.num_epochs": 1, **settings})
    rows: list[dict[str, Any]] = []
    run(config, rows.append, folder)
    return rows[-1]


@pytest.mark.parametrize(
    ("method", "schedule"),
    [("importance_diversity", {1: 0.5}), ("merge", {1: 0.5}), ("tome", 8), ("evit", {1: 0.5}), ("amod", {1: 0.5})],
)
def test_a_training_step_runs_on_fewer_tokens_and_reaches_every_parameter(method: str, schedule: Any) -> None:
    settings = {"model.pruning.method": method, "model.pruning.schedule": schedule, "model.pruning.k_anchors": 3}
    model, seen = classifier(**settings).train(), list[int]()
    reduction = TokenReduction(TrainingSection(reduce_tokens=True), model, torch.Generator())
    for block in host_of(model.core).blocks:
        block.mlp.register_forward_hook(lambda _, args, out: seen.append(out.shape[1]))  # type: ignore[union-attr]
    with reduction.batch():
        F.cross_entropy(model(images()).prediction, torch.arange(4)).backward()
    assert min(seen) < 50
    seen.clear()
    model(images())
    assert seen == [65, 65, 65]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_keep_rates_are_drawn_from_the_range_for_every_batch() -> None:
    model = classifier(**EVIT).train()

    def drawn(seed: int) -> list[str]:
        settings = TrainingSection(reduce_tokens=True, keep_rates=(0.4, 0.9))
        reduction, texts = TokenReduction(settings, model, torch.Generator().manual_seed(seed)), []
        for _ in range(20):
            with reduction.batch():
                assert model.training_pruning is not None
                texts.append(model.training_pruning.text())
        assert model.training_pruning is None
        return texts

    rates = [float(text.removeprefix("schedule=").removesuffix("@1")) for text in drawn(0)]
    assert all(0.4 <= rate <= 0.9 for rate in rates)
    assert max(rates) - min(rates) > 0.3
    assert drawn(0) == drawn(0) != drawn(1)


def test_the_term_is_the_divergence_from_the_dense_path_by_hand() -> None:
    model = classifier(**EVIT, **{"model.dropout": 0.5}).train()
    reduction = TokenReduction(TrainingSection(reduce_tokens=True), model, torch.Generator())
    distillation = Distillation(DistilSection(weight=0.5, temperature=2.0, tokens=True))
    model.training_pruning = model.pruning
    with reduction.batch():
        output = model(images())
    modes = [module.training for module in model.modules()]
    distillation.add(model, output, images(), {})
    assert modes == [module.training for module in model.modules()]
    with torch.no_grad():
        taught = model.eval().dense_path(images())
    said, wanted = ((logits / 2).softmax(dim=1) for logits in (output.prediction, taught.prediction))
    divergence = (wanted * (wanted / said).log()).sum(dim=1).mean()
    assert torch.allclose(output.losses["distil"], 0.5 * 4 * divergence, atol=1e-6)
    assert output.tokens is not None  # of EViT, whose others are fused, the class token alone
    assert output.tokens.shape == (4, 1, 16)
    assert taught.tokens is not None
    apart = (_normed(output.tokens) - _normed(taught.tokens[:, :1])).square().mean()
    assert torch.allclose(output.losses["distil_tokens"], 0.5 * apart, atol=1e-6)
    assert output.losses["distil"].requires_grad
    assert not taught.prediction.requires_grad


def _normed(tokens: Tensor) -> Tensor:
    return (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


def test_tokens_are_compared_with_those_of_the_same_places() -> None:
    method = {"model.pruning.method": "cls_attention", "model.pruning.schedule": {1: 0.5, 2: 10}}
    model = classifier(**method, **{"model.dropout": 0.0})
    model.training_pruning = model.pruning
    output = model.train()(images())
    assert output.kept is not None
    assert output.kept.shape == (4, 11)
    dense = model.dense_path(images())
    model.training_pruning = None
    Distillation(DistilSection(weight=1.0, tokens=True)).add(model, output, images(), {})
    assert output.tokens is not None
    assert dense.tokens is not None
    places = torch.stack([tokens[kept] for tokens, kept in zip(dense.tokens, output.kept, strict=True)])
    apart = (_normed(output.tokens) - _normed(places)).square().mean()
    assert torch.allclose(output.losses["distil_tokens"], apart, atol=1e-6)


def test_runs_report_their_terms(tiny: dict[str, Any]) -> None:
    distil = {"training.distil.weight": 0.5, "training.distil.temperature": 2.0}
    row = losses(tiny, **REDUCED, **distil, **{"training.distil.tokens": True, "training.keep_rates": [0.5, 1.0]})
    assert row["train_loss_distil"] > 0
    assert row["train_loss_distil_tokens"] > 0
    assert row["train_loss"] == pytest.approx(
        row["train_loss_task"] + row["train_loss_distil"] + row["train_loss_distil_tokens"]
    )
    again = losses(tiny, **REDUCED, **distil, **{"training.distil.tokens": True, "training.keep_rates": [0.5, 1.0]})
    assert again["train_loss"] == row["train_loss"]
    routed = losses(tiny, **distil)
    assert routed["train_loss_distil"] > 0
    exits = {"model.name": "early_exit", "model.network.name": "conv_net", "model.network.widths": [8, 16]}
    assert losses(tiny, **exits, **distil)["train_loss_distil"] > 0


def test_given_weights_teach(tiny: dict[str, Any], folder: Path) -> None:
    losses(tiny, folder, **VIT)
    dense = {**VIT, "model.weights": str(folder), "model.dropout": 0.0, "training.learning_rate": 1e-12}
    distil = {"training.distil.weight": 1.0, "training.distil.weights": str(folder)}
    assert losses(tiny, **dense, **distil)["train_loss_distil"] == pytest.approx(0, abs=1e-6)
    assert losses(tiny, **dense, **EVIT, **distil, **{"training.reduce_tokens": True})["train_loss_distil"] > 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training.reduce_tokens": True}, "training.reduce_tokens: AttentionRouting has no tokens to reduce"),
        ({**VIT, "training.reduce_tokens": True}, "model.pruning.method is none"),
        ({**VIT, "training.keep_rates": [0.5, 1]}, "training.keep_rates needs training.reduce_tokens true"),
        ({**REDUCED, "training.keep_rates": [0.9, 0.5]}, "the lower end comes first"),
        ({**REDUCED, "training.keep_rates": [0.01, 0.5]}, "block 1 would leave 1 of 64 patches"),
        ({**VIT, **EVIT, "training.distil.weight": 1.0}, "Vit skips nothing in training"),
        ({"training.distil.weight": 1.0, "training.distil.tokens": True}, "AttentionRouting has no tokens"),
        (
            {**REDUCED, "training.distil.weight": 1.0, "training.distil.weights": "nowhere"},
            "^training.distil.weights nowhere: no such file",
        ),
        (
            {"training.distil.weight": 1.0, "training.distil.weights": "nowhere.safetensors"},
            "^training.distil.weights nowhere.safetensors: no such file",
        ),
        ({**REDUCED, "training.distil.weights": "nowhere"}, "teaches nothing at training.distil.weight 0"),
        ({**REDUCED, "training.distil.weight": 1.0, "training.keep_rates": [1.0, 1.0]}, "Vit skips nothing"),
        (
            {
                "model.aggregator": "score_weighted",
                "model.router.mode": "post_hoc",
                "training.distil.weight": 1.0,
            },
            "AttentionRouting skips nothing in training",
        ),
        (
            {
                **VIT,
                "model.name": "routed_vit",
                "model.capacity": 1.0,
                "training.distil.weight": 1.0,
            },
            "RoutedVit skips nothing in training",
        ),
        (
            {**REDUCED, "training.phases": [{"parts": ["head"], "losses": ["distil"]}]},
            r"Vit has no loss term 'distil' \(valid: task\)",
        ),
    ],
)
def test_what_cannot_be_trained(tiny: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(RunConfig.from_dict({**tiny, **change}))


def test_check_reduction_allows_models_that_can() -> None:
    check_reduction(TrainingSection(reduce_tokens=True, keep_rates=(0.1, 1.0)), classifier(**EVIT))


def test_a_teacher_sees_images_as_its_own_weights_were_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = torchvision.models.vision_transformer
    build, small = library._vision_transformer, {"hidden_dim": 48, "mlp_dim": 96}
    monkeypatch.setattr(library, "_vision_transformer", lambda **given: build(**{**given, **small}))
    info = DataInfo("classification", 1, 64, 10, (0.5,), (0.5,))
    named = {"model.name": "torchvision_vit", "model.architecture": "vit_b_32"}
    inside = {"model.name": "aacn", "model.backbone.name": "resnet18"}
    for student, weights in ((named, "model.weights"), (inside, "model.backbone.weights")):
        scratch = RunConfig.from_dict({"dataset.name": "digits", **student})
        assert build_model(scratch.model, info).scale is None
        trained = scratch.replace(**{weights: "DEFAULT"})
        wanted = build_model(trained.model, info)
        save_tensors(tmp_path / "model.safetensors", wanted.state_dict(), {"data": "{}"})
        (tmp_path / "config.yaml").write_text(trained.to_yaml())
        for source in (tmp_path, tmp_path / "model.safetensors"):
            settings = DistilSection(weight=1.0, weights=str(source))
            teacher = build_teacher(settings, scratch.model, info, torch.device("cpu"))
            assert teacher is not None
            assert torch.equal(teacher.scale, wanted.scale)  # type: ignore[arg-type]
        settings = DistilSection(weight=1.0, weights=str(tmp_path))
        (tmp_path / "config.yaml").write_text(scratch.to_yaml())
        teacher = build_teacher(settings, trained.model, info, torch.device("cpu"))
        assert teacher is not None
        assert teacher.scale is None


def test_tokens_are_refused_where_no_place_is_left() -> None:
    settings = TrainingSection(reduce_tokens=True, distil=DistilSection(weight=1.0, tokens=True))
    for method in ("evit", "tome", "merge", "cls_attention"):
        model = classifier(**{**EVIT, "model.pruning.method": method})
        check_distillation(settings, model)
        host = model.host
        host.prefix = Prefix(0, has_cls=False)
        with patch.object(type(model), "host", host):
            if method == "cls_attention":
                check_distillation(settings, model)
                continue
            with pytest.raises(InputError, match=f"training.distil.tokens: {method} leaves no token of this model"):
                check_distillation(settings, model)


@pytest.mark.parametrize(
    "change",
    [{"model.router.mode": "top_k", "model.router.budget.unit": "ratio", "model.router.budget.target": 1.0}],
)
def test_a_share_of_all_patches_skips_nothing(tiny: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="AttentionRouting skips nothing in training"):
        losses({**tiny, **change}, **{"training.distil.weight": 1.0})
