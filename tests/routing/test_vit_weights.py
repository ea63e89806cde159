"""Vision transformers of torchvision and timm by name, and the weights that all of them start from."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from routing.config.run import RunConfig
from routing.data import DataInfo, normalise
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.models import build_model
from routing.models.vit.classifier import TransformerClassifier
from routing.runner import run
from routing.saved import load


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's ViTs with all their blocks, names and patches, but 48 wide: nothing here depends on the width."""
    build = torchvision.models.vision_transformer._vision_transformer

    def narrow(**arguments: Any) -> Any:
        return build(**{**arguments, "hidden_dim": 48, "mlp_dim": 96})

    monkeypatch.setattr(torchvision.models.vision_transformer, "_vision_transformer", narrow)


def info(size: int, channels: int = 1) -> DataInfo:
    return DataInfo("classification", channels, size, 10, (0.5,) * channels, (0.5,) * channels)


def test_torchvision_by_name() -> None:
    config = RunConfig.from_dict(
        {"model.name": "torchvision_vit", "model.architecture": "vit_b_32", "model.pruning.method": "merge",
         "model.pruning.k_anchors": 1, "model.pruning.top_m": 2, "model.pruning.start_layer": 11}
    )  # fmt: skip
    model = build_model(config.model, info(64)).eval()
    batch = torch.randn(2, 1, 64, 64)
    output = model(batch)
    assert output.prediction.shape == (2, 10)
    report = measure(model, batch)
    assert torch.equal(report.executed_per_image, report.closed_form_per_image)
    with pytest.raises(InputError, match=r"patches of 32 pixels do not divide dataset.input_size 40"):
        build_model(config.model, info(40))


def test_pretrained_weights_that_are_not_there(tmp_path: Path) -> None:
    config = RunConfig.from_dict({"model.name": "torchvision_vit", "model.architecture": "vit_b_32"})
    model = build_model(config.model, info(32))
    for weights, message in (
        ("IMAGENET", r"model.weights 'IMAGENET'.*valid: IMAGENET1K_V1"),
        (str(tmp_path / "no.pth"), "no such file"),
    ):
        section = config.replace(**{"model.weights": weights}).model
        with pytest.raises(InputError, match=message):
            model.initialise(section)
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    section = config.replace(**{"model.weights": str(tmp_path / "bad.pth")}).model
    with pytest.raises(InputError, match="not a readable file of weights"):
        model.initialise(section)


def test_torchvision_weights_from_a_file_keep_a_new_head(tmp_path: Path) -> None:
    """Positions of a larger image are interpolated; a head for other classes is left as it is."""
    torch.manual_seed(0)
    donor = torchvision.models.vit_b_32(image_size=96, num_classes=7)
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    config = RunConfig.from_dict({"model.name": "torchvision_vit", "model.architecture": "vit_b_32"})
    section = config.replace(**{"model.weights": str(tmp_path / "donor.pth")}).model
    model = build_model(section, info(64))
    assert isinstance(model, TransformerClassifier)
    model.initialise(section)
    assert torch.equal(model.core.conv_proj.weight, donor.conv_proj.weight)
    assert model.core.encoder.pos_embedding.shape == (1, 5, 48)
    other = config.replace(**{"model.architecture": "vit_b_16", "model.weights": str(tmp_path / "donor.pth")}).model
    with pytest.raises(InputError, match="do not fit vit_b_16"):
        build_model(other, info(64)).initialise(other)


TIMM = {"model.name": "timm_vit", "model.architecture": "vit_tiny_patch16_224"}


def test_timm_by_name() -> None:
    pytest.importorskip("timm")
    keys = {**TIMM, "model.pruning.method": "cls_attention", "model.pruning.k_anchors": 1, "model.pruning.top_m": 2}
    model = build_model(RunConfig.from_dict(keys).model, info(64)).eval()
    assert isinstance(model, TransformerClassifier)
    batch = torch.randn(2, 1, 64, 64)
    report = measure(model, batch)
    assert torch.equal(report.executed_per_image, report.closed_form_per_image)
    assert report.closed_form_per_image[0] < 0.5 * model.dense_flops


@pytest.mark.parametrize("channels", [1, 3])
def test_timm_models_see_images_as_timm_normalises_them(channels: int) -> None:
    pytest.importorskip("timm")
    given = DataInfo("classification", channels, 64, 10, (0.1, 0.2, 0.3)[:channels], (0.3, 0.2, 0.1)[:channels])
    model = build_model(RunConfig.from_dict(TIMM).model, given).eval()
    pixels = torch.randint(0, 256, (2, channels, 64, 64), dtype=torch.uint8)
    timms = replace(given, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert model.core.pretrained_cfg["mean"] == timms.mean
    with torch.no_grad():
        expected = model.core(normalise(pixels.expand(-1, 3, -1, -1), timms))
        torch.testing.assert_close(model(normalise(pixels, given)).prediction, expected)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("vit_tiny_patch16_242", r"timm .* has no such model; did you mean 'vit_tiny_patch16_224'\?"),
        ("resnet18", "not a plain vision transformer of timm"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer: attention inside windows"),
        ("vit_tiny_r_s16_p8_224", "patches of another kind"),
        ("vit_tiny_patch16_224.augreg", r"vit_tiny_patch16_224.augreg: .*tag"),
        (
            "vit_small_patch14_dinov2",
            r"patches of 14 pixels do not divide dataset.input_size 64 \(valid: multiples of 14\)",
        ),
    ],
)
def test_timm_models_that_cannot_be_pruned_here(architecture: str, message: str) -> None:
    pytest.importorskip("timm")
    config = RunConfig.from_dict({**TIMM, "model.architecture": architecture})
    with pytest.raises(InputError, match=message):
        build_model(config.model, info(64))


def test_timm_fails_in_ways_of_its_own_in_one_line() -> None:
    pytest.importorskip("timm")
    config = RunConfig.from_dict({**TIMM, "model.architecture": "vit_tiny_r_s16_p8_224"})
    with pytest.raises(InputError, match="vit_tiny_r_s16_p8_224: ") as error:
        build_model(config.model, info(40))
    assert "\n" not in str(error.value)
    for name in ("timm_vit", "torchvision_vit"):
        config = RunConfig.from_dict({"model.name": name})
        with pytest.raises(InputError, match="these data have 4 channels; the model takes 1 or 3"):
            build_model(config.model, info(224, channels=4))


def test_timm_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm: pip install 'routing-sweeps\[timm\]'"):
        build_model(RunConfig.from_dict(TIMM).model, info(64))


def test_timm_weights_from_a_file_keep_a_new_head(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    donor = timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=7)
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    section = RunConfig.from_dict({**TIMM, "model.weights": str(tmp_path / "donor.pth")}).model
    model = build_model(section, info(64))
    model.initialise(section)
    assert torch.equal(model.core.blocks[3].attn.qkv.weight, donor.blocks[3].attn.qkv.weight)
    assert model.core.pos_embed.shape == (1, 17, 192)
    assert model.untrained_parts == ("head",)
    larger = RunConfig.from_dict({**TIMM, "model.architecture": "vit_small_patch16_224", **_weights(tmp_path)}).model
    with pytest.raises(InputError, match="do not fit vit_small_patch16_224"):
        build_model(larger, info(64)).initialise(larger)
    unknown = RunConfig.from_dict({**TIMM, "model.weights": "IMAGENET1K_V1"}).model
    with pytest.raises(InputError, match=r"model.weights 'IMAGENET1K_V1' \(valid: DEFAULT, a run, or a .safetensors"):
        model.initialise(unknown)


def _weights(folder: Path) -> dict[str, str]:
    return {"model.weights": str(folder / "donor.pth")}


def test_a_timm_model_of_ones_own_is_pruned_without_training(tmp_path: Path, tiny: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    donor = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10)
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    keys = {"dataset.input_size": 64, "dataset.patch_grid_size": 4, "training.num_epochs": 0, **_weights(tmp_path)}
    grid = {"model.pruning.grid.k_anchors": [1], "model.pruning.grid.top_m": [2, 6]}
    record = run(RunConfig.from_dict({**tiny, **TIMM, **keys, **grid}), out=tmp_path / "run")
    assert [point.knob_value for point in record.points] == [
        "none",
        *(f"k_anchors=1,top_m={m},alpha=0.5,start_layer=1" for m in (2, 6)),
    ]
    saved = load(tmp_path / "run").model
    assert isinstance(saved, TransformerClassifier)
    torch.testing.assert_close(saved.core.state_dict(), donor.state_dict())


def test_a_head_that_was_never_trained_is_not_evaluated(tmp_path: Path, tiny: dict[str, Any]) -> None:
    torch.save(torchvision.models.vit_b_32(image_size=64, num_classes=7).state_dict(), tmp_path / "donor.pth")
    keys = {"model.name": "torchvision_vit", "model.architecture": "vit_b_32", "dataset.input_size": 64}
    keys |= {"dataset.patch_grid_size": 4, "model.weights": str(tmp_path / "donor.pth"), "training.num_epochs": 0}
    with pytest.raises(InputError, match=r"training.num_epochs 0 .* their head is not for the 10 classes"):
        run(RunConfig.from_dict({**tiny, **keys}))


def test_weights_without_a_head_are_not_evaluated(tmp_path: Path, tiny: dict[str, Any]) -> None:
    state = torchvision.models.vit_b_32(image_size=64, num_classes=10).state_dict()
    torch.save({key: value for key, value in state.items() if not key.startswith("heads.")}, tmp_path / "donor.pth")
    keys = {"model.name": "torchvision_vit", "model.architecture": "vit_b_32", "dataset.input_size": 64}
    keys |= {"dataset.patch_grid_size": 4, "model.weights": str(tmp_path / "donor.pth"), "training.num_epochs": 0}
    with pytest.raises(InputError, match=r"training.num_epochs 0 .* their head is not for the 10 classes"):
        run(RunConfig.from_dict({**tiny, **keys}))


@pytest.mark.parametrize("model", [TIMM, {"model.name": "torchvision_vit", "model.architecture": "vit_b_32"}])
def test_a_run_lends_its_weights(model: dict[str, str], tmp_path: Path, tiny: dict[str, Any]) -> None:
    if model is TIMM:
        pytest.importorskip("timm")
    keys = {**tiny, **model, "dataset.num_train": 32, "dataset.input_size": 64, "dataset.patch_grid_size": 4}
    keys |= {"evaluation.operating_points": False}
    trained = run(RunConfig.from_dict(keys), out=tmp_path / "run")
    for name in ("run", "run/model.safetensors"):
        frozen = {"model.weights": str(tmp_path / name), "training.num_epochs": 0}
        again = run(RunConfig.from_dict({**keys, **frozen}))
        assert again.metrics["val_loss"] == trained.metrics["val_loss"]
