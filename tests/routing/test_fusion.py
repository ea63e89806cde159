"""Fusion of stages: weights by hand, their sum, scales that are left out, parameters, compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.evaluation.compute import count_module
from routing.models.hyperiqa.fusion import Attention, Concat, CrossScale, Fusion, Spatial, Uniform
from routing.models.hyperiqa.model import _Gathered, build_fusion
from routing.models.hyperiqa.section import FusionSection

CHANNELS = (4, 8, 12, 16)
SWIN_T = (96, 192, 384, 768)
POOL = 3
MODES = ("concat", "uniform", "attention", "spatial", "cross_scale")


def built(mode: str, **keys: object) -> Fusion:
    torch.manual_seed(0)
    section = FusionSection.model_validate({"mode": mode, "width": 8, "heads": 2, "hidden": 10, **keys})
    return build_fusion(section, CHANNELS).eval()


def maps(batch: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, channels, POOL, POOL, generator=generator) for channels in CHANNELS]


@pytest.mark.parametrize("mode", MODES)
def test_all_modes_keep_the_shape_of_the_scales(mode: str) -> None:
    fused, weights = built(mode)(maps())
    assert fused.shape == (3, sum(CHANNELS), POOL, POOL)
    assert weights.shape == (3, 4)


@pytest.mark.parametrize("mode", ["uniform", "attention", "cross_scale"])
@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_weights_of_every_image_sum_to_one_whatever_is_kept(mode: str, kept: int) -> None:
    _, weights = built(mode)(maps()[:kept])
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert (weights[:, kept:] == 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_scales_left_out_are_zero_in_the_fused_map(mode: str) -> None:
    fused, _ = built(mode)(maps()[:2])
    assert fused.shape[1] == sum(CHANNELS)
    assert (fused[:, CHANNELS[0] + CHANNELS[1] :] == 0).all()
    assert (fused[:, : CHANNELS[0]] != 0).any()


def test_concat_and_uniform_by_hand() -> None:
    features = maps()
    fused, weights = Concat(CHANNELS)(features)
    assert torch.equal(fused, torch.cat(features, 1))
    assert (weights == 1).all()
    fused, weights = Uniform(CHANNELS)(features)
    torch.testing.assert_close(fused, torch.cat(features, 1) / 4)
    assert (weights == 0.25).all()


def test_attention_is_the_formula_of_the_last_scale() -> None:
    fusion, features = Attention(CHANNELS, 10, 0.5).eval(), maps()
    first, last = fusion.score[0], fusion.score[3]
    hidden = torch.relu(features[3].mean((2, 3)) @ first.weight.T + first.bias)
    expected = torch.softmax(hidden @ last.weight.T + last.bias, 1)
    fused, weights = fusion(features)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(fused[:, 4:12], features[1] * expected[:, 1].view(3, 1, 1, 1))


def test_attention_differs_between_images_and_is_fixed_in_eval() -> None:
    fusion = built("attention", dropout=0.5)
    _, first = fusion(maps())
    assert not torch.allclose(first[0], first[1])
    assert torch.equal(first, fusion(maps())[1])
    fusion.train()
    draws = torch.stack([fusion(maps())[1] for _ in range(300)])
    assert draws.std(0).max() > 0
    assert (draws.mean(0) - first).abs().max() < 0.05  # dropout rescales: right on average


def test_attention_on_swin_t_has_the_parameters_of_the_paper() -> None:
    # 768 x 256 + 256 x 4 weights, 256 + 4 biases
    fusion = build_fusion(FusionSection(mode="attention"), SWIN_T)
    weights = sum(p.numel() for name, p in fusion.named_parameters() if name.endswith("weight"))
    biases = sum(p.numel() for name, p in fusion.named_parameters() if name.endswith("bias"))
    assert (weights, biases) == (197_632, 260)
    assert fusion.width == 1440


def test_spatial_gates_are_maps_between_zero_and_one() -> None:
    fusion, features = Spatial(CHANNELS), maps()
    fused, weights = fusion(features)
    gate = fusion.gates[2](features[2])
    assert gate.shape == (3, 1, POOL, POOL)
    torch.testing.assert_close(weights[:, 2], gate.mean((1, 2, 3)))
    torch.testing.assert_close(fused[:, 12:24], features[2] * gate)
    assert ((gate > 0) & (gate < 1)).all()


def test_cross_scale_is_torch_attention_among_scales_of_one_cell() -> None:
    fusion, features = CrossScale(CHANNELS, 8, 2), maps()
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(fusion.qkv.weight)
        reference.in_proj_bias.copy_(fusion.qkv.bias)
        reference.out_proj.weight.copy_(torch.eye(8))
        reference.out_proj.bias.zero_()
    tokens = torch.stack([into(f[:, :, 1, 2]) for into, f in zip(fusion.into, features, strict=True)], 1)
    read, _ = reference(tokens, tokens, tokens)
    fused, _ = fusion(features)
    torch.testing.assert_close(fused[:, 24:, 1, 2], features[3][:, :, 1, 2] + fusion.out_of[3](read[:, 3]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kept", [1, 2, 4])
def test_closed_form_is_what_the_tracer_counts(mode: str, kept: int) -> None:
    fusion = built(mode)
    example = tuple(feature[:1] for feature in maps()[:kept])
    assert fusion.multiply_adds(kept, POOL) == count_module(_Gathered(fusion), example)


@pytest.mark.parametrize("mode", MODES)
def test_several_scales_are_needed(mode: str) -> None:
    from routing.config.run import RunConfig

    with pytest.raises(InputError, match=rf"'{mode}' weighs scales against each other and has only one, 4"):
        RunConfig.from_dict(
            {"dataset.name": "quality", "model.name": "hyperiqa", "model.fusion": {"mode": mode, "scales": [4]}}
        )
