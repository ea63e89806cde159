"""Weights of another architecture: one line that says which they are of; weights without a head for these classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.models import build_model
from routing.models.nearest_weights import looks_like
from routing.runner import run

HEADS = {"timm_vit": ("head.", "head_dist."), "torchvision_vit": "heads.", "timm_net": "fc.", "torchvision_net": "fc."}


def weights(library: str, name: str, **settings: Any) -> dict[str, Tensor]:
    """Return the tensors of an architecture, shapes without memory."""
    with torch.device("meta"):
        if library == "timm":
            network: nn.Module = pytest.importorskip("timm").create_model(name, **settings)
        else:
            from torchvision.models import get_model

            network = get_model(name)
    return network.state_dict()


@pytest.mark.parametrize(
    ("library", "theirs", "model", "asked", "said"),
    [
        ("timm", "vit_small_patch14_dinov2", "timm_vit", "vit_tiny_patch16_224", "; they are of vit_small_patch14_dinov2"),  # noqa: E501
        ("timm", "beit_base_patch16_224", "timm_vit", "vit_base_patch16_224", "; they are of beit_base_patch16_224"),
        ("timm", "eva02_tiny_patch14_224", "timm_vit", "vit_tiny_patch16_224", "; they are of eva02_tiny_patch14_224"),
        ("timm", "resnet26", "timm_net", "resnet18", "; they are of resnet26"),
        ("torchvision", "vit_b_16", "torchvision_vit", "vit_b_32", "; they are of vit_b_16"),
        ("torchvision", "vit_b_16", "timm_vit", "vit_base_patch16_224", "; they are of vit_b_16 (model.name torchvision_vit)"),  # noqa: E501
        ("torchvision", "resnet50", "torchvision_net", "resnet18", "; they are of resnet50"),
        ("torchvision", "mobilenet_v2", "torchvision_net", "resnet18", "; they are of mobilenet_v2"),
    ],
)  # fmt: skip
def test_the_architecture_of_weights_is_named(library: str, theirs: str, model: str, asked: str, said: str) -> None:
    pytest.importorskip("timm")
    assert looks_like(weights(library, theirs), model, asked, HEADS[model]) == said


def test_the_nearest_is_named_with_its_share() -> None:
    state = weights("timm", "vit_tiny_patch16_224", depth=10)
    said = looks_like(state, "timm_vit", "vit_small_patch16_224", HEADS["timm_vit"])
    assert said == "; 84% of names and shapes are as in vit_tiny_patch16_224"  # 10 of 12 blocks


def test_nothing_is_near_and_another_library() -> None:
    assert looks_like({"a": torch.zeros(3)}, "timm_vit", "vit_tiny_patch16_224", "head.") == ""
    hugging = {"vit.embeddings.patch_embeddings.projection.weight": torch.zeros(3)}
    said = looks_like(hugging, "timm_vit", "vit_tiny_patch16_224", "head.")
    assert said == "; their names are those of transformers (model.name transformers_vit)"
    assert looks_like(hugging, "transformers_vit", "a folder", "classifier.") == ""


@pytest.mark.parametrize("key", ["model.weights", "model.backbone.weights"])
def test_the_error_names_it(key: str, tmp_path: Path) -> None:
    from torchvision.models import resnet34

    torch.save(resnet34().state_dict(), tmp_path / "weights.pth")
    names = {
        "model.weights": ("torchvision_net", "model.architecture"),
        "model.backbone.weights": ("aacn", "model.backbone.name"),
    }
    model, architecture = names[key]
    config = RunConfig.from_dict({"model.name": model, architecture: "resnet18", key: str(tmp_path / "weights.pth")})
    built = build_model(config.model, DataInfo("classification", 3, 64, 10, (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(InputError) as error:
        built.initialise(config.model)
    assert str(error.value).startswith(f"{key} {tmp_path / 'weights.pth'}: do not fit resnet18: ")
    assert str(error.value).endswith("; they are of resnet34")
    assert "\n" not in str(error.value)


def test_a_head_for_other_classes_is_said(tiny: dict[str, Any], tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v3_small

    torch.save(mobilenet_v3_small(num_classes=7).state_dict(), tmp_path / "weights.pth")
    keys = {"model.name": "torchvision_net", "model.architecture": "mobilenet_v3_small", "dataset.num_train": 32,
            "dataset.num_val": 32, "evaluation.operating_points": False,
            "model.weights": str(tmp_path / "weights.pth"), "training.num_epochs": 1}  # fmt: skip
    said: list[str] = []
    run(RunConfig.from_dict({**tiny, **keys}), say=said.append)
    assert "model.weights: no head for these 10 classes is in them; it starts untrained" in said


def test_a_windowed_transformer_is_for_the_model_that_takes_it() -> None:
    state = weights("timm", "swin_tiny_patch4_window7_224")
    said = looks_like(state, "timm_net", "swin_small_patch4_window7_224", HEADS["timm_net"])
    assert "model.name timm_vit" not in said
    said = looks_like(state, "timm_vit", "vit_tiny_patch16_224", HEADS["timm_vit"])
    assert said.endswith("swin_tiny_patch4_window7_224 (model.name timm_net)")


def test_without_timm_wrong_weights_are_named_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    state = weights("timm", "vit_tiny_patch16_224")
    monkeypatch.setitem(sys.modules, "timm", None)
    assert looks_like(state, "timm_vit", "vit_small_patch16_224", HEADS["timm_vit"]) == ""
