"""Vision transformers: attention equal to the fused kernel's, published costs, pruning settings as operating points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.evaluation.compute import count_module, expected_flops, measure
from routing.models import build_model
from routing.models.vit.attention_maps import attention_maps
from routing.models.vit.classifier import TransformerClassifier
from routing.models.vit.hosts import host_of
from routing.models.vit.model import default_patch_size
from routing.models.vit.network import VisionTransformer
from routing.runner import run
from routing.saved import evaluate_saved, load

SMALL = {"model.name": "vit", "model.width": 16, "model.heads": 2, "model.depth": 3, "model.mlp": 32}
PRUNED = {"model.pruning.method": "importance_diversity", "model.pruning.k_anchors": 3, "model.pruning.top_m": 9}


def info(size: int = 40, channels: int = 1, classes: int = 10) -> DataInfo:
    return DataInfo("classification", channels, size, classes, (0.5,) * channels, (0.5,) * channels)


def small(**changes: Any) -> TransformerClassifier:
    torch.manual_seed(0)
    model = build_model(RunConfig.from_dict({**SMALL, **changes}).model, info()).eval()
    assert isinstance(model, TransformerClassifier)
    return model


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 1, 40, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("width", "heads", "giga"), [(384, 6, 4.60), (768, 12, 17.56)])
def test_published_cost(width: int, heads: int, giga: float) -> None:
    """ViT-S/16 and ViT-B/16 at 224 (arXiv:2010.11929): closed form, fvcore's trace and torch's own counter."""
    t, d, m = 197, width, 4 * width
    closed = 196 * 768 * d + 12 * (t * d * (4 * d + 2 * m) + 2 * t * t * d) + d * 1000
    assert round(closed / 1e9, 2) == giga
    keys = {"patch_size": 16, "width": d, "heads": heads, "depth": 12, "mlp": m}
    section = RunConfig.from_dict({"model.name": "vit", **{f"model.{key}": value for key, value in keys.items()}}).model
    model = build_model(section, info(224, 3, 1000))
    assert isinstance(model, TransformerClassifier)
    assert model.dense_flops == closed
    core = model.core.to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        core(torch.zeros(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() // 2 == closed


def test_whole_trace_is_the_closed_form() -> None:
    model = small()
    assert count_module(model.core, (torch.zeros(1, 1, 40, 40),)) == model.dense_flops


def test_torchvision_costs_the_same() -> None:
    core = torchvision.models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    t, d, m = 17, 16, 32
    closed = 16 * (8 * 8 * 3) * d + 2 * (t * d * (4 * d + 2 * m) + 2 * t * t * d) + d * 1000
    assert count_module(core, (torch.zeros(1, 3, 32, 32),)) == closed


def own() -> nn.Module:
    return VisionTransformer(image_size=24, patch_size=4, channels=3, width=16, heads=2, depth=3, mlp=32, num_outputs=5)


def from_torchvision() -> nn.Module:
    return torchvision.models.VisionTransformer(24, 4, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32)


def from_open_clip() -> nn.Module:
    transformer = pytest.importorskip("open_clip.transformer")
    return transformer.VisionTransformer(24, 4, width=16, layers=3, heads=2, mlp_ratio=2, output_dim=5)


@pytest.mark.parametrize("build", [own, from_torchvision, from_open_clip])
def test_attention_is_what_the_fused_kernel_used(build: Any) -> None:
    """Rebuild the output of the attention module from the map, values and output projection: equal to 1e-5."""
    torch.manual_seed(0)
    model = build().eval()
    host, batch = host_of(model), torch.randn(4, 3, 24, 24)
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    for index, block in enumerate(host.blocks):
        attention = host.parts(block)[1]
        attention.register_forward_hook(
            lambda _, args, out, index=index: seen.update({index: (args[0], out[0] if isinstance(out, tuple) else out)})
        )
    maps = attention_maps(model, batch)
    for index, block in enumerate(host.blocks):
        attention = host.parts(block)[1]
        weight, bias = host.in_projection(attention)
        normed, out = seen[index]
        values = nn.functional.linear(normed, weight[32:], None if bias is None else bias[32:])
        values = values.unflatten(2, (2, 8)).transpose(1, 2)
        rebuilt = attention.out_proj((maps[index] @ values).transpose(1, 2).flatten(2))
        assert torch.allclose(rebuilt, out, atol=1e-5)
        assert torch.allclose(maps[index].sum(-1), torch.ones(4, 2, 37), atol=1e-5)


def test_one_layer_of_attention_on_request() -> None:
    model = small()
    maps = attention_maps(model.core, images(), layers=[-1, 0])
    assert list(maps) == [2, 0]
    assert maps[0].shape == (4, 2, 65, 65)
    with pytest.raises(InputError, match=r"layer 3: the model has 3 blocks \(valid: -3 to 2\)"):
        attention_maps(model.core, images(), layers=[3])
    assert not any(block._forward_pre_hooks for block in model.host.blocks)


@pytest.mark.parametrize(("size", "expected"), [(28, 7), (40, 5), (32, 4), (224, 7), (36, 6)])
def test_default_patch_is_the_reference_where_it_fits(size: int, expected: int) -> None:
    assert default_patch_size(size) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.patch_size": 7}, r"model.patch_size 7 does not divide the image size 40 \(valid: 2, 4, 5, 8"),
        ({"model.heads": 3}, r"model.heads 3 does not divide model.width 16 \(valid: 1, 2, 4, 8, 16\)"),
        ({"model.pruning.alpha": 1.5}, r"model.pruning.alpha: must be less than or equal to 1, not 1.5"),
        ({"model.pruning.k_anchors": 0}, r"model.pruning.k_anchors: must be greater than or equal to 1"),
        ({"model.pruning.start_layer": 0}, r"model.pruning.start_layer: must be greater than or equal to 1"),
        ({**PRUNED, "model.pruning.start_layer": 3}, r"pruning.start_layer 3: .*blocks 0 to 2.*valid: 1 to 2"),
        ({**PRUNED, "model.pruning.top_m": 62}, r"1 \+ 3 \+ 62 = 66 tokens, but the model has 65"),
        ({"model.pruning.methd": "none"}, r"unknown key 'model.pruning.methd'; did you mean 'model.pruning.method'"),
    ],
)
def test_bad_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model(RunConfig.from_dict({**SMALL, **change}).model, info())


def test_pruning_acts_in_evaluation_only() -> None:
    model = small(**PRUNED, **{"model.dropout": 0.0})
    plain = small(**{"model.dropout": 0.0})
    assert torch.equal(model.train()(images()).prediction, plain.train()(images()).prediction)
    assert not torch.equal(model.eval()(images()).prediction, plain.eval()(images()).prediction)


@pytest.mark.parametrize("method", ["none", "importance_diversity", "random", "cls_attention", "diversity", "merge"])
def test_ledger_agrees_at_every_operating_point(method: str) -> None:
    model = small(**{**PRUNED, "model.pruning.method": method, "model.pruning.start_layer": 2})
    batch = images()
    assert measure(model, batch).executed_per_image.double().mean().item() == model.expected_flops()
    with torch.no_grad():
        values = model.knob_values([batch])
        for value, output in zip(values, model.along_knob(batch, values), strict=True):
            model.set_knob(value)
            assert torch.equal(model(batch).prediction, output.prediction)
            report = measure(model, batch)
            assert torch.equal(report.executed_per_image, report.closed_form_per_image)
    assert "none" in values
    assert model.default_knob_value == "none"  # the last value set


def test_grid_gives_every_combination_that_fits() -> None:
    grid = {"k_anchors": [2, 40], "top_m": [10, 30], "alpha": [0.0, 0.5, 1.0], "start_layer": [1, 2]}
    model = small(**{f"model.pruning.grid.{key}": value for key, value in grid.items()})
    values = [str(value) for value in model.knob_values([])]
    # (2, 10), (2, 30), (40, 10) fit 65 tokens, (40, 30) does not; 3 alphas, 2 layers, and none
    assert len(values) == 3 * 3 * 2 + 1
    assert "k_anchors=40,top_m=30,alpha=0,start_layer=1" not in values
    with pytest.raises(InputError, match=r"every setting keeps more tokens than the model has \(65\)"):
        small(**{"model.pruning.grid.top_m": [64]}).knob_values([])
    with pytest.raises(InputError, match="start_layer 3"):
        small(**{"model.pruning.grid.start_layer": [3], "model.pruning.grid.top_m": [5]}).knob_values([])


def test_kept_share_and_cost_of_a_setting_by_hand() -> None:
    model = small(**PRUNED)
    output = model(images())
    t, kept, d, m = 65, 13, 16, 32

    def block(tokens: int) -> int:
        return tokens * d * (4 * d + 2 * m) + 2 * tokens**2 * d

    choice = t * d * d + (1 + 3) * (d * d + t * d) + 3 * t * d
    expected = 64 * 25 * d + block(t) + choice + 2 * block(kept) + d * 10
    assert model.closed_form(output.units_executed, 4).tolist() == [expected] * 4
    assert output.routing_ratio is not None
    assert output.routing_ratio.tolist() == pytest.approx([13 / 65] * 4)


def test_a_run_and_its_operating_points(tiny: dict[str, Any], folder: Path) -> None:
    grid = {"model.pruning.grid.k_anchors": [2, 4], "model.pruning.grid.top_m": [6, 20]}
    config = RunConfig.from_dict({**tiny, **SMALL, **grid})
    record = run(config, out=folder)
    assert len(record.points) == 5
    default = record.points[0]
    assert (default.knob, default.knob_value, default.is_default) == ("pruning", "none", True)
    assert default.flops == record.metrics["flops"] == record.metrics["flops_dense"] == expected_flops(config)
    assert all(point.flops < default.flops and point.flops == point.flops_p95 for point in record.points[1:])
    again = evaluate_saved(folder, curve=True)
    assert [point.metrics for point in again] == [point.metrics for point in record.points]


def test_exported_setting_is_the_default_of_a_saved_run(tiny: dict[str, Any], folder: Path) -> None:
    text = "k_anchors=2,top_m=6,alpha=0.5,start_layer=1"
    config = RunConfig.from_dict({**tiny, **SMALL, "evaluation.knob_value": text, "evaluation.operating_points": False})
    record = run(config, out=folder)
    assert record.points[0].knob_value == text
    saved = load(folder)
    assert isinstance(saved.model, TransformerClassifier)
    assert saved.model.default_knob_value == text


def test_a_knob_value_names_no_method() -> None:
    model = small()
    with pytest.raises(InputError, match=r"method is no part of it; set model\.pruning\.method"):
        model.check_knob("method=random,k_anchors=1,top_m=2")
