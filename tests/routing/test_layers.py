"""Parts of a model that phases train, and its layers from input to output, for every kind of model that has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import routing.runner as runner
from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.models import build_model
from routing.models.base import VisionModel
from routing.models.layers import in_order, parameters_of

TINY_VIT = {"model.width": 8, "model.heads": 2, "model.depth": 3, "model.mlp": 8}
PHOTOGRAPHS = DataInfo("classification", 3, 32, 5, (0.5,) * 3, (0.5,) * 3)
RATED = DataInfo("quality", 3, 64, 1, (0.5,) * 3, (0.5,) * 3)


def built(keys: dict[str, Any], info: DataInfo = PHOTOGRAPHS) -> VisionModel:
    quality = {"dataset.name": "quality"} if info.task == "quality" else {}
    return build_model(RunConfig.from_dict({**keys, **quality}).model, info)


def names(model: nn.Module, layers: list[list[nn.Parameter]]) -> list[list[str]]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[known[id(parameter)] for parameter in layer] for layer in layers]


def check_covers(model: VisionModel) -> None:
    """Check that every parameter is in one part and in one layer."""
    everything = sorted(name for name, _ in model.named_parameters())
    in_parts = [list(parameters_of(items)) for items in model.parts().values()]
    for groups in (in_parts, model.depth_order()):
        assert sorted(name for group in names(model, groups) for name in group) == everything


TRANSFORMERS: list[dict[str, Any]] = [
    {"model.name": "vit", **TINY_VIT},
    {"model.name": "routed_vit", "model.scores": "learned", **TINY_VIT},
    {"model.name": "timm_vit", "model.architecture": "test_vit2"},
    {"model.name": "timm_vit", "model.architecture": "test_vit3"},
    {"model.name": "timm_vit", "model.architecture": "eva02_tiny_patch14_224"},
    {"model.name": "timm_vit", "model.architecture": "beit_base_patch16_224"},
]


@pytest.mark.parametrize("keys", TRANSFORMERS, ids=lambda keys: str(keys.get("model.architecture", keys["model.name"])))
def test_transformers_have_an_embedding_blocks_and_a_head(keys: dict[str, Any]) -> None:
    if keys["model.name"] == "timm_vit":
        pytest.importorskip("timm")
    side = {"eva02_tiny_patch14_224": 28}.get(keys.get("model.architecture", ""), 32)
    model = built(keys, replace(PHOTOGRAPHS, input_size=side))
    check_covers(model)
    parts = model.parts()
    assert list(parts)[:3] == ["embedding", "blocks", "head"]
    of = {part: names(model, [list(parameters_of(items))])[0] for part, items in parts.items()}
    assert all(".blocks." in name for name in of["blocks"])
    assert all("embed" in name or "token" in name or "pos" in name for name in of["embedding"])
    assert any(name.endswith("head.weight") for name in of["head"])
    depth = len({name.split(".blocks.")[1].split(".")[0] for name in of["blocks"]})
    assert len(model.depth_order()) == depth + 2


def test_a_torchvision_transformer_has_them_too() -> None:
    keys = {"model.name": "torchvision_vit", "model.architecture": "vit_b_32"}
    model = built(keys)
    check_covers(model)
    found = names(model, model.depth_order())
    assert set(found[0]) == {
        "core.class_token", "core.conv_proj.weight", "core.conv_proj.bias", "core.encoder.pos_embedding"
    }  # fmt: skip
    assert found[-1] == [
        "core.encoder.ln.weight",
        "core.encoder.ln.bias",
        "core.heads.head.weight",
        "core.heads.head.bias",
    ]


NETS: list[tuple[dict[str, Any], DataInfo, int]] = [
    ({"model.name": "conv_net", "model.widths": [8, 8], "model.depth": 2}, PHOTOGRAPHS, 1 + 2 * 2 + 1),
    ({"model.name": "torchvision_net", "model.architecture": "resnet18"}, PHOTOGRAPHS, 1 + 8 + 1),
    ({"model.name": "torchvision_net", "model.architecture": "mobilenet_v2"}, PHOTOGRAPHS, 1 + 17 + 1 + 1),
    ({"model.name": "timm_net", "model.architecture": "resnet10t"}, PHOTOGRAPHS, 1 + 4 + 1),
    ({"model.name": "early_exit", "model.network.name": "conv_net"}, PHOTOGRAPHS, 1 + 3 * 2 + 1),
    ({"model.name": "aacn"}, PHOTOGRAPHS, 3 + 1),
    ({"model.name": "aacn", "model.backbone.name": "resnet18"}, PHOTOGRAPHS, 1 + 6 + 1),  # the last stage is 1 x 1
    ({"model.name": "hyperiqa"}, RATED, 4 + 1),
    ({"model.name": "hyperiqa", "model.backbone.name": "resnet18"}, RATED, 1 + 8 + 1),
    ({"model.name": "hyperiqa", "model.backbone.name": "swin_t"}, RATED, 1 + 2 + 1 + 2 + 1 + 6 + 1 + 2 + 1),
]


@pytest.mark.parametrize(
    ("keys", "info", "layers"),
    NETS,
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_layers_are_blocks_from_the_image_on(keys: dict[str, Any], info: DataInfo, layers: int) -> None:
    if keys["model.name"] == "timm_net":
        pytest.importorskip("timm")
    model = built(keys, info)
    check_covers(model)
    found = names(model, model.depth_order())
    assert len(found) == layers
    order = {name: index for index, layer in enumerate(found) for name in layer}
    first, last = min(order.values()), max(order.values())
    conv = next(name for name in order if name.endswith("weight") and model.get_parameter(name).ndim == 4)
    assert order[conv] == first
    if keys["model.name"] in ("conv_net", "torchvision_net", "timm_net"):
        assert list(model.parts()) == ["backbone", "head"]
        assert names(model, [list(parameters_of(model.parts()["head"]))])[0] == found[-1][-2:]
    heads = [name for name in order if any(word in name for word in ("head", "classifier.", "fc."))]
    assert heads
    assert {order[name] for name in heads} == {last}


def test_a_norm_of_its_own_belongs_to_the_layer_before() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    )
    assert [len(layer) for layer in in_order(net)] == [4, 2, 2]


def test_the_head_alone_then_the_rest(tiny: dict[str, Any]) -> None:
    """A linear probe, then fine-tuning: what comes before the head stays bit for bit in the first phase."""
    phases = [{"parts": ["head"], "epochs": 1}, {"parts": ["embedding", "blocks", "head"], "epochs": 1}]
    config = RunConfig.from_dict(
        {
            **tiny,
            "dataset.num_train": 64,
            "evaluation.operating_points": False,
            "model.name": "vit",
            **TINY_VIT,
            "training.num_epochs": 2,
            "training.phases": phases,
        }
    )
    seen: list[dict[str, torch.Tensor]] = []
    original = runner.train_epoch

    def watched(model: VisionModel, *args: Any, **kwargs: Any) -> Any:
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        result = original(model, *args, **kwargs)
        seen.append({name: (parameter != before[name]).any() for name, parameter in model.named_parameters()})
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "train_epoch", watched)
        record = runner.run(config)
    assert [row["phase"] for row in record.history] == ["head", "embedding+blocks+head"]
    heads = {name for name in seen[0] if name.startswith(("core.norm", "core.head"))}
    assert {name for name, is_changed in seen[0].items() if is_changed} == heads
    assert all(seen[1].values())
