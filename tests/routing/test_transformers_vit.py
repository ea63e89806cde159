"""Hugging Face's ViT, DINOv2 (with registers too) and CLIP through one adapter: the library's numbers, and pruning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.exports.portable import export_model
from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.models import build_model
from routing.models.layers import parameters_of
from routing.models.vit.classifier import TransformerClassifier
from routing.models.vit.hosts import host_of
from routing.models.vit.opened import attend, feed
from routing.models.vit.positions import Prefix
from routing.models.vit.token_pruning import pruned
from routing.runner import run
from routing.saved import evaluate_saved, load
from tests.routing.literal_selection import attention_seen, literal_choice

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
CLASSIFIERS = {
    "vit": ("ViTForImageClassification", "ViTConfig", 1),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", 1),
    "dinov2_with_registers": ("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", 5),
    "clip": ("CLIPForImageClassification", "CLIPConfig", 1),
}
SIDE, PATCH, CLASSES = 32, 8, 5
INFO = DataInfo("classification", 3, SIDE, CLASSES, (0.5,) * 3, (0.25,) * 3)


def library_model(kind: str, classes: int = CLASSES) -> Any:
    """Return the library's classifier with random weights in every place."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {**SIZES, "image_size": SIDE, "patch_size": PATCH}
    if kind.startswith("dinov2"):
        del sizes["intermediate_size"]
    name, config, _ = CLASSIFIERS[kind]
    given = {"vision_config": sizes} if kind == "clip" else sizes
    model = getattr(transformers, name)(getattr(transformers, config)(**given, num_labels=classes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(params=CLASSIFIERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> Path:
    """A folder as ``save_pretrained`` leaves it, with preprocessing."""
    library_model(kind).save_pretrained(tmp_path / kind)
    processor = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True,
                 "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}  # fmt: skip
    (tmp_path / kind / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / kind


def ours(folder: Path, info: DataInfo = INFO, **keys: Any) -> TransformerClassifier:
    config = RunConfig.from_dict({"model": {"name": "transformers_vit", "architecture": str(folder), **keys}})
    model = build_model(config.model, info)
    assert isinstance(model, TransformerClassifier)
    model.initialise(config.model)
    return model.eval()


@torch.no_grad()
def test_without_reduction_it_is_the_library_bit_for_bit(kind: str, folder: Path) -> None:
    library, images = library_model(kind), torch.randn(3, 3, SIDE, SIDE)
    model = ours(folder, weights="DEFAULT")
    assert model.untrained_parts == ()
    assert torch.equal(model(images).prediction, library(images).logits)
    keeps_all = ours(folder, weights="DEFAULT", pruning={"method": "importance_diversity", "k_anchors": 6, "top_m": 10})
    assert torch.equal(keeps_all(images).prediction, library(images).logits)
    prunes = ours(folder, weights="DEFAULT", pruning={"method": "importance_diversity", "k_anchors": 2, "top_m": 4})
    assert not torch.equal(prunes(images).prediction, library(images).logits)


@torch.no_grad()
def test_the_librarys_own_model_is_pruned_in_place(kind: str) -> None:
    """Kept tokens are those of a literal loop on the attention that the fused kernel saw."""
    model, images = library_model(kind), torch.randn(2, 3, SIDE, SIDE)
    host, first = host_of(model), CLASSIFIERS[kind][2]
    assert (host.prefix, host.grid, host.depth) == (Prefix(first), (4, 4), 3)
    expected = model(images).logits
    with pruned(model, 6, 10):
        assert torch.equal(model(images).logits, expected)
    entering: list[Tensor] = []
    handle = host.blocks[1].register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    with attention_seen() as seen:
        model(images)
    handle.remove()
    normed = host.parts(host.blocks[1])[0](entering[0])
    with pruned(model, 2, 4, 0.5) as record:
        assert not torch.equal(model(images).logits, expected)
    assert record.kept is not None
    for image in range(2):
        assert record.kept[image].tolist() == literal_choice(seen[1][image], normed[image], first, has_cls=True)
    assert torch.equal(model(images).logits, expected)


@torch.no_grad()
def test_a_block_taken_apart_is_the_block(kind: str) -> None:
    """What merging inside a block needs: attention, then the MLP, as the library runs them."""
    host, tokens = host_of(library_model(kind)), torch.randn(2, 21, 48)
    for block, positions in zip(host.blocks, host.positions(), strict=True):
        apart = feed(host, block, attend(host, block, tokens, positions).tokens)
        torch.testing.assert_close(apart, host.run(block, tokens, positions), atol=1e-5, rtol=1e-5)


def test_cost_and_parts(kind: str, folder: Path) -> None:
    model = ours(folder, pruning={"method": "importance_diversity", "k_anchors": 2, "top_m": 4})
    report = measure(model, torch.randn(2, 3, SIDE, SIDE))
    assert torch.equal(report.executed_per_image, report.closed_form_per_image)
    assert report.closed_form_per_image[0] < model.dense_flops
    parts = model.parts()
    assert list(parts) == ["embedding", "blocks", "head"]
    assert sum(p.numel() for part in parts.values() for p in parameters_of(part)) == model.num_parameters()
    assert [len(layer) > 0 for layer in model.depth_order()] == [True] * 5
    with torch.no_grad():
        images = torch.randn(2, 3, SIDE, SIDE)
        values = model.knob_values([images])
        for value, output in zip(values, model.along_knob(images, values), strict=True):
            model.set_knob(value)
            torch.testing.assert_close(model(images).prediction, output.prediction)


@torch.no_grad()
def test_another_size_and_other_classes(kind: str, folder: Path) -> None:
    """Positions are interpolated as the library does; a classifier of other classes starts untrained."""
    images = torch.randn(2, 3, 48, 48)
    model = ours(folder, replace(INFO, input_size=48), weights="DEFAULT")
    asked = {} if kind.startswith("dinov2") else {"interpolate_pos_encoding": True}
    torch.testing.assert_close(
        model(images).prediction, library_model(kind)(images, **asked).logits, atol=1e-6, rtol=1e-5
    )
    other = ours(folder, replace(INFO, num_outputs=3), weights="DEFAULT")
    assert other.untrained_parts == ("head",)


def test_preprocessing_is_that_of_the_folder(folder: Path) -> None:
    keys = {"name": "image_folder", "root": str(folder), "resize": "auto"}
    model = {"name": "transformers_vit", "architecture": str(folder)}
    section: Any = RunConfig.from_dict({"dataset": keys, "model": model}).dataset
    assert (section.input_size, section.resize, section.crop_pct) == (32, "shortest", 0.8)
    assert (section.interpolation, section.mean, section.std) == ("bicubic", (0.5,) * 3, (0.25,) * 3)


def test_weights_of_a_file_and_of_a_backbone_without_a_head(tmp_path: Path) -> None:
    whole = library_model("vit")
    whole.save_pretrained(tmp_path / "whole")
    whole.vit.save_pretrained(tmp_path / "backbone")
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        from_file = ours(tmp_path / "whole", weights=str(tmp_path / "weights.pth"))
        assert torch.equal(from_file(images).prediction, whole(images).logits)
    backbone = ours(tmp_path / "whole", weights=str(tmp_path / "backbone"))
    assert backbone.untrained_parts == ("head",)
    assert torch.equal(backbone.core.vit.layernorm.weight, whole.vit.layernorm.weight)  # type: ignore[union-attr]


def test_trains_and_comes_back(tiny: dict[str, Any], tmp_path: Path) -> None:
    library_model("vit").save_pretrained(tmp_path / "vit")
    keys = {"dataset.num_train": 64, "training.num_epochs": 1, "model.architecture": str(tmp_path / "vit"),
            "model.weights": "DEFAULT", "evaluation.operating_points": False}  # fmt: skip
    record = run(RunConfig.from_dict({**tiny, "model.name": "transformers_vit", **keys}), out=tmp_path / "run")
    assert record.metrics["flops"] > 0
    saved = load(tmp_path / "run")
    grey = torch.zeros(2, 1, saved.info.input_size, saved.info.input_size, dtype=torch.uint8)
    assert saved.predict(grey).prediction.shape == (2, 10)


def test_a_run_is_evaluated_and_exported_without_the_folder(
    kind: str, folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    """Its own mean 0.5 and deviation 0.25 stand against those of the data; elsewhere neither folder nor names are."""
    keys = {"dataset.num_train": 64, "training.num_epochs": 1, "model.architecture": str(folder),
            "model.weights": "DEFAULT", "evaluation.operating_points": False}  # fmt: skip
    out = tmp_path / "run"
    record = run(RunConfig.from_dict({**tiny, "model.name": "transformers_vit", **keys}), out=out)
    moved = out.rename(tmp_path / "elsewhere")
    folder.rename(tmp_path / "gone")
    [point] = evaluate_saved(moved)
    assert point.metrics["val_accuracy"] == record.metrics["val_accuracy"]
    saved = load(moved)
    assert torch.allclose(saved.model.scale, torch.tensor(saved.info.std).view(-1, 1, 1) / 0.25)  # type: ignore[arg-type]
    images = torch.as_tensor(saved.config.dataset.load()["val"].images[:64])
    assert export_model(saved, images, "torch_export", moved).agreeing == 64
    (moved / "library.json").write_text("{}")
    with pytest.raises(InputError, match=r"library.json: not as a run writes it: 'config'"):
        load(moved)
    (moved / "library.json").unlink()
    with pytest.raises(InputError, match="no configuration of a model can be had"):
        load(moved)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"no configuration of a model can be had \(.*\); give a folder with its config.json"),
        ({"model_type": "swin"}, r"a model of the kind 'swin' \(valid: vit, dinov2, dinov2_with_registers, clip"),
        ({"model_type": "vit", "patch_size": 7}, r"its patches of 7 pixels do not divide dataset.input_size 32"),
    ],
)
def test_what_is_no_such_model_is_one_line(config: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        ours(tmp_path)


def test_weights_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    library_model("vit").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"model.weights 'IMAGENET1K_V1' \(valid: DEFAULT, a run, a folder"):
        ours(tmp_path, weights="IMAGENET1K_V1")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model.weights DEFAULT: weights of .* cannot be loaded"):
        ours(tmp_path, weights="DEFAULT")
