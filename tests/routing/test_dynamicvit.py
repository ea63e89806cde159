"""DynamicViT: its choice is a literal loop, masks are removal, predictors learn, a run keeps and names their state."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.config.run import RunConfig
from routing.config.training import DistilSection, TrainingSection
from routing.data import DataInfo
from routing.errors import InputError
from routing.models import build_model
from routing.models.attention import rows_at
from routing.models.base import ModelOutput
from routing.models.vit import token_predictor
from routing.models.vit.block_methods import Step
from routing.models.vit.classifier import TransformerClassifier
from routing.models.vit.hosts import host_of
from routing.models.vit.network import VisionTransformer
from routing.models.vit.section import TimmVitSection
from routing.models.vit.token_predictor import Predictor, run_masked
from routing.models.vit.token_pruning import reduced
from routing.runner import run
from routing.saved import evaluate_saved, load
from routing.training.distillation import Distillation
from routing.training.reduction import check_reduction
from tests.routing.literal_reduction import literal_dynamicvit
from tests.routing.test_token_reduction import HOSTS, built

RATES = {1: 0.7, 3: 0.5}
SMALL = {
    "dataset.input_size": 30,
    "model.name": "vit",
    "model.patch_size": 5,
    "model.width": 16,
    "model.heads": 2,
    "model.depth": 4,
    "model.mlp": 32,
    "model.dropout": 0.0,
}
DYNAMIC = {**SMALL, "model.pruning.method": "dynamicvit", "model.pruning.schedule": RATES}
LEARNING = {**DYNAMIC, "training.reduce_tokens": True}


def classifier(**settings: Any) -> TransformerClassifier:
    torch.manual_seed(0)
    config = RunConfig.from_dict({**DYNAMIC, **settings})
    model = build_model(config.model, DataInfo("classification", 1, 30, 10, (0.5,), (0.5,)))
    assert isinstance(model, TransformerClassifier)
    for name, parameter in model.named_parameters():  # larger than at the start of a training: scores that differ
        nn.init.normal_(parameter, std=0.2 if "core" in name else 0.5)
    return model


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 1, 30, 30, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_kept_tokens_are_those_of_a_literal_loop() -> None:
    model = classifier().double().eval()
    core, batch = model.core, images().double()
    assert isinstance(core, VisionTransformer)
    wanted = [literal_dynamicvit(core, tokens, RATES, model.predictors) for tokens in core.embed(batch)]
    output = model(batch)
    assert output.kept.tolist() == [kept for _, kept in wanted]
    assert output.kept.shape == (4, 1 + 13)  # 36 * .7 = 25.2 -> 26, 26 * .5 = 13
    logits = torch.stack([core.classify(tokens[None])[0] for tokens, _ in wanted])
    assert torch.allclose(output.prediction.double(), logits, atol=1e-6)
    with reduced(core, "dynamicvit", RATES, predictors=model.reference.predictors) as record:
        assert torch.allclose(core(batch), logits, atol=1e-9)
    assert record.kept is not None
    assert torch.equal(record.kept, output.kept)


def test_cost_by_hand() -> None:
    model, d, m = classifier(), 16, 32

    def block(tokens: int) -> int:
        return tokens * d * (4 * d + 2 * m) + 2 * tokens**2 * d

    each = d * d + d * d // 2 + d // 2 * d // 4 + d // 4 * 2  # 36 patches are scored, then the 26 that are left
    predictors = (36 + 26) * each
    assert model.expected_flops() == 36 * 25 * d + 10 * d + block(37) + 2 * block(27) + block(14) + predictors


def forced(model: TransformerClassifier, decided: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> ModelOutput:
    """Return a training step in which every predictor decides as given (B, N)."""
    left = iter(decided)
    monkeypatch.setattr(token_predictor.F, "gumbel_softmax", lambda logits, hard: next(left)[..., None] + 0 * logits)
    model.training_pruning = model.pruning
    output: ModelOutput = model.train()(images())
    model.training_pruning = None
    return output


def test_a_mask_does_what_removal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    core = model.core
    assert isinstance(core, VisionTransformer)
    first, second = ((torch.rand(4, 36, generator=torch.Generator().manual_seed(n)) < 0.6).float() for n in (2, 3))
    output = forced(model, [first, second], monkeypatch)
    left = first * second
    assert output.left is not None
    assert torch.equal(output.left[:, 1:], left)
    shares = [(1, 26 / 36, first), (3, 13 / 36, left)]
    apart = torch.stack([(kept.mean(dim=1) - share).square().mean() for _, share, kept in shares]).mean()
    assert torch.allclose(output.losses["keep_rate"], 2 * apart)
    with torch.no_grad():
        for image, tokens in enumerate(core.embed(images())):
            present = torch.arange(37)
            row = tokens[None]
            for index, block in enumerate(core.blocks):
                gone = {1: first, 3: left}.get(index)
                if gone is not None:
                    stay = torch.cat([torch.ones(1), gone[image]])[present].bool()
                    row, present = row[:, stay], present[stay]
                row = block(row)
            assert torch.allclose(output.prediction[image], core.classify(row)[0], atol=1e-5)


def test_masks_that_keep_all_are_the_dense_path(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    output = forced(model, [torch.ones(4, 36)] * 2, monkeypatch)
    assert torch.allclose(output.prediction, model.dense_path(images()).prediction, atol=1e-5)
    nothing = forced(model, [torch.zeros(4, 36)] * 2, monkeypatch)
    assert nothing.prediction.isfinite().all()


@pytest.mark.parametrize("name", HOSTS)
def test_masks_on_every_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping all is the dense path, and tokens that are kept do not see those that are dropped."""
    model = built(name)
    host = host_of(getattr(model, "inner", model))
    first, steps = host.prefix.count, {1: Step("select", host.num_tokens, host.num_tokens - 9)}
    predictors = {"1": Predictor(host.width)}
    tokens, kept = torch.randn(2, host.num_tokens, host.width), torch.ones(2, host.num_patches)
    monkeypatch.setattr(token_predictor.F, "gumbel_softmax", lambda logits, hard: kept[..., None] + 0 * logits)
    with torch.no_grad():
        dense = tokens
        for block, positions in zip(host.blocks, host.positions(), strict=True):
            dense = host.run(block, dense, positions)
        assert torch.allclose(run_masked(host, predictors, steps, tokens).tokens, dense, atol=1e-4, rtol=1e-3)
        kept[:, ::4] = 0
        seen = run_masked(host, predictors, steps, tokens)
        assert torch.equal(seen.left[:, first:], kept)
        before = host.run(host.blocks[0], tokens, host.positions()[0])
        stay = torch.cat([torch.ones(first), kept[0]]).nonzero().flatten().expand(2, -1)
        row = rows_at(before, stay)
        for block, positions in zip(host.blocks[1:], host.positions()[1:], strict=True):
            row = host.run(block, row, positions.of(stay, first, host.num_tokens))
        assert torch.allclose(rows_at(seen.tokens, stay), row, atol=1e-4, rtol=1e-3)


def test_a_stopped_training_goes_on_to_the_same_weights(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict({**tiny, **LEARNING, "training.num_epochs": 2})
    run(config, out=folder / "whole")

    def stop(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, stop, folder / "stopped")
    run(config, out=folder / "stopped")
    whole, stopped = (load(folder / name).model.state_dict() for name in ("whole", "stopped"))
    assert whole["predictors.1.trained"]
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())


@pytest.mark.parametrize("schedule", [{1: 0.7, 3: 0.5}, 6])
def test_a_training_step_reaches_every_parameter(schedule: Any) -> None:
    model = classifier(**{"model.pruning.schedule": schedule}).train()
    model.training_pruning = model.pruning
    torch.manual_seed(3)
    output = model(images())
    F.cross_entropy(output.prediction, torch.arange(4)).backward()  # without the keep rate: through the masks alone
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any(), name


def test_the_mean_is_that_of_the_patches_left() -> None:
    predictor = Predictor(16).double()
    patches = torch.randn(2, 9, 16, dtype=torch.float64)
    left = torch.tensor([[1.0] * 5 + [0.0] * 4] * 2, dtype=torch.float64)
    assert torch.allclose(predictor(patches, left)[:, :5], predictor(patches[:, :5]))
    assert predictor(patches, torch.zeros_like(left)).isfinite().all()


def test_tokens_that_are_hidden_learn_nothing_from_a_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    output = forced(model, [torch.cat([torch.ones(4, 20), torch.zeros(4, 16)], dim=1)] * 2, monkeypatch)
    Distillation(DistilSection(weight=1.0, tokens=True)).add(model, output, images(), {})
    assert output.tokens is not None
    taught = model.dense_path(images()).tokens
    assert taught is not None
    said, wanted = (F.layer_norm(tokens[:, :21], (16,)) for tokens in (output.tokens, taught))
    assert torch.allclose(output.losses["distil_tokens"], F.mse_loss(said, wanted), atol=1e-6)


def test_training_keeps_the_wanted_share_and_is_remembered(
    tiny: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = []
    settings = {
        "training.num_epochs": 6,
        "training.learning_rate": 1e-2,
        "training.batch_size": 16,
        "model.pruning.schedule": {1: 0.3},
    }
    config = RunConfig.from_dict({**tiny, **LEARNING, **settings})
    record = run(config, rows.append, folder)
    apart = [row["train_loss_keep_rate"] for row in rows]
    assert apart[-1] < apart[0] / 3, apart
    assert rows[-1]["train_loss"] == pytest.approx(rows[-1]["train_loss_task"] + apart[-1], rel=1e-5)
    assert "untrained" not in capsys.readouterr().err
    points = {point.knob_value: point.metrics for point in record.points}
    assert {"schedule=0.3@1", "schedule=0.6@1", "none"} <= points.keys()
    again = evaluate_saved(folder, curve=True)
    assert {point.knob_value: point.metrics for point in again} == points
    assert "untrained" not in capsys.readouterr().err
    # a frozen copy of it, and one of which the dense network alone is taken
    frozen = {"training.num_epochs": 0, "training.reduce_tokens": False, "model.weights": str(folder)}
    same = run(config.replace(**frozen))
    assert same.metrics["val_accuracy"] == record.metrics["val_accuracy"]
    run(config.replace(**frozen, **{"model.pruning.method": "evit"}))
    run(config.replace(**frozen, **{"model.pruning.schedule": {2: 0.3}}))
    assert "the predictor before block 2 is untrained; what it keeps means nothing" in capsys.readouterr().err


def test_predictors_alone_on_a_frozen_network(tiny: dict[str, Any], folder: Path) -> None:
    run(RunConfig.from_dict({**tiny, **SMALL, "training.num_epochs": 1}), out=folder)
    frozen = {"model.weights": str(folder), "training.phases": [{"parts": ["predictors"]}], "training.num_epochs": 1}
    run(RunConfig.from_dict({**tiny, **LEARNING, **frozen}), out=folder / "learned")
    before, after = load(folder).model, load(folder / "learned").model
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert after.caution is None


def test_untrained_predictors_are_said(tiny: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(RunConfig.from_dict({**tiny, **DYNAMIC, "training.num_epochs": 1}), out=folder)
    wanted = "pruning: the predictor before block 1, 3 is untrained; what it keeps means nothing (training.reduce"
    assert wanted in capsys.readouterr().err
    evaluate_saved(folder)
    assert wanted in capsys.readouterr().err


def test_a_copy_has_its_own_predictors() -> None:
    model = classifier()
    other = copy.deepcopy(model)
    assert other.reference.predictors is other.predictors
    assert other.pruning is not None
    assert other.pruning.predictors is other.predictors is not model.predictors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.pruning.schedule": None}, "pruning.method dynamicvit needs pruning.schedule"),
        ({"model.pruning.schedule": {4: 0.5}}, r"block 4, but the model has blocks 0 to 3 \(valid: 1 to 3\)"),
        ({"model.pruning.schedule": {1: 0.02}}, r"block 1 would leave 1 of 36 patches \(valid: at least 2"),
        (
            {"model.pruning.grid.schedule": [{2: 0.5}]},
            r"no predictor before block 2 \(valid: the blocks of model.pruning.schedule: 1, 3\)",
        ),
        ({"training.keep_rates": [0.5, 1.0]}, "training.keep_rates: dynamicvit learns to keep one share"),
    ],
)
def test_what_cannot_be(tiny: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(RunConfig.from_dict({**tiny, **LEARNING, **change}))


def test_models_that_have_no_predictor_or_read_patches() -> None:
    core = classifier().core
    with pytest.raises(InputError, match=r"no predictor before block 1 \(valid: a run that trains it: model.pruning"):
        with reduced(core, "dynamicvit", RATES):
            pass
    timm = pytest.importorskip("timm")
    del timm
    sizes = {"architecture": "vit_tiny_patch16_224", "pruning": {"method": "dynamicvit", "schedule": RATES}}
    info = DataInfo("classification", 3, 32, 10, (0.5,) * 3, (0.5,) * 3)
    model = build_model(TimmVitSection(**sizes), info)
    assert isinstance(model, TransformerClassifier)
    check_reduction(TrainingSection(reduce_tokens=True), model)
    with pytest.raises(InputError, match=r"head of this model reads patches, .*\(valid: a model that reads its"):
        build_model(TimmVitSection(**{**sizes, "architecture": "vit_base_patch16_siglip_224"}), info)
