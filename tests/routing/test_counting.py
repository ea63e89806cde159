"""Counting what runs: formulas by hand, torch's own counter on real architectures, fvcore's trace on static parts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from routing.config.run import RunConfig
from routing.errors import InputError
from routing.evaluation.compute import ComputeError, count_module, measure
from routing.models import build_model


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


class TestFormulas:
    @pytest.mark.parametrize(
        ("function", "shapes", "expected"),
        [
            (torch.matmul, [(5, 4), (1, 4, 4, 10)], 4 * 5 * 4 * 10),  # Q E, B H E N with Q=5, E=4, B=1, H=4, N=10
            (torch.matmul, [(1, 4, 10, 4), (4, 5)], 4 * 10 * 4 * 5),
            (torch.matmul, [(2, 1, 3, 4), (6, 4, 5)], 2 * 6 * 3 * 4 * 5),
            (torch.matmul, [(5, 4), (4,)], 5 * 4),
            (torch.matmul, [(4,), (4, 5)], 4 * 5),
            (torch.matmul, [(3, 5, 4), (4,)], 3 * 5 * 4),
            (torch.matmul, [(4,), (4,)], 4),
            (torch.mv, [(5, 4), (4,)], 5 * 4),
            (torch.dot, [(7,), (7,)], 7),
            (torch.addmv, [(5,), (5, 4), (4,)], 5 * 4),
            (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
            (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
            (lambda a, b: torch.tensordot(a, b, dims=2), [(3, 4, 5), (4, 5, 6)], 3 * 4 * 5 * 6),
            (lambda a, b: torch.einsum("bhqe,bhke->bhqk", a, b), [(2, 3, 5, 8), (2, 3, 7, 8)], 2 * 3 * 5 * 7 * 8),
            (F.scaled_dot_product_attention, [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 6)], 2 * 3 * 5 * 7 * (8 + 6)),
        ],
    )
    def test_products(self, function: Callable[..., Any], shapes: list[tuple[int, ...]], expected: int) -> None:
        assert count_module(Calls(function), tuple(zeros(*shape) for shape in shapes)) == expected

    def test_transposed_and_grouped_convolution(self) -> None:
        # transposed: every input pixel meets the kernel; 5 x 5 pixels, 4 -> 6 channels, 3 x 3
        assert count_module(nn.ConvTranspose2d(4, 6, 3, stride=2), (zeros(1, 4, 5, 5),)) == 25 * 4 * 6 * 9
        assert count_module(nn.Conv2d(4, 8, 3, groups=2), (zeros(1, 4, 5, 5),)) == 9 * 8 * 2 * 9

    def test_recurrent_networks(self) -> None:
        # four gates of 16 on 8 inputs and 16 states, a second layer on 16 and 16; 3 sequences of 5 steps
        lstm = nn.LSTM(8, 16, 2, batch_first=True)
        assert count_module(lstm, (zeros(3, 5, 8),)) == 3 * 5 * 4 * 16 * (8 + 16 + 16 + 16)
        assert count_module(nn.GRU(8, 16), (zeros(5, 3, 8),)) == 3 * 5 * 3 * 16 * (8 + 16)

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: F.dropout(x, 0.5, True, True).numel(),
            lambda x: x.clone().zero_(),
            lambda x: torch.addcmul(x, x, x),
            lambda x: torch.lerp(x, x, 0.5),
            lambda x: x.reshape_as(x),
            lambda x: F.pixel_unshuffle(x, 2),
            lambda x: F.pixel_shuffle(x, 2),
            lambda x: F.channel_shuffle(x, 2),
            lambda x: F.prelu(x, torch.ones(4)),
            lambda x: F.glu(x, 1),
            F.mish,
            lambda x: F.rms_norm(x, (6,)),
            lambda x: F.embedding(x.long(), torch.ones(9, 3)),
            lambda x: F.interpolate(x, scale_factor=2, mode="bicubic", antialias=True),
            lambda x: F.grid_sample(x, torch.zeros(2, 3, 3, 2), align_corners=False),
            lambda x: F.max_pool2d(x, 2),
            lambda x: F.unfold(x, 2),
            lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
            lambda x: x.roll(1, 2).sort(dim=1).values.topk(2, dim=1).indices.unique(),
            lambda x: x[x == 0].std(),
            lambda x: torch.searchsorted(x.flatten().sort().values, x.flatten()),
        ],
    )
    def test_what_copies_reshapes_or_scales_is_free(self, function: Callable[..., Any]) -> None:
        assert count_module(Calls(function), (zeros(2, 4, 6, 6),)) == 0

    def test_only_what_the_batch_executes(self) -> None:
        layer = nn.Linear(4, 8)
        module = Calls(lambda x: layer(x[x[:, 0] > 0]))
        assert count_module(module, (torch.tensor([[1.0] * 4, [-1.0] * 4, [2.0] * 4]),)) == 2 * 4 * 8


class TestHandles:
    def test_a_handle_counts_what_has_no_formula(self) -> None:
        module, pair = nn.Bilinear(4, 5, 6), (zeros(3, 4), zeros(3, 5))
        with pytest.raises(ComputeError, match=r"Bilinear: no formula for operator aten::_trilinear.*valid: handles="):
            count_module(module, pair)

        def formula(inputs: Any, output: Tensor) -> int:
            assert output.shape[:2] == (3, 6)
            return prod(inputs[1].shape) * inputs[0].shape[0]  # an operand of it is the weight (6, 4, 5)

        counted = count_module(module, pair, handles={"aten::_trilinear": formula})
        assert counted == count_module(module, pair, handles={"_trilinear": formula}) == 3 * 6 * 4 * 5

    def test_handles_that_would_never_be_called(self) -> None:
        with pytest.raises(InputError, match=r"there is no operator 'aten::mvv'; did you mean 'mv'"):
            count_module(nn.Linear(2, 2), (zeros(1, 2),), handles={"aten::mvv": lambda i, o: 1})
        with pytest.raises(InputError, match=r"'aten::bilinear' is made of other operators"):
            count_module(nn.Linear(2, 2), (zeros(1, 2),), handles={"aten::bilinear": lambda i, o: 1})


class Frozen(nn.Module):
    """A batch norm kept in eval mode beside a layer in training mode."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.norm, self.layer, self.fails = nn.BatchNorm1d(4).eval(), nn.Linear(4, 4), fails

    def forward(self, x: Tensor) -> Tensor:
        if self.fails:
            raise RuntimeError("in the middle")
        return self.layer(F.dropout(self.norm(x), training=True))


class TestTheModelIsLeftAsItWas:
    @pytest.mark.parametrize("fails", [False, True])
    def test_modes_hooks_random_state(self, fails: bool) -> None:
        model = Frozen(fails)
        random = torch.get_rng_state()
        if fails:
            with pytest.raises(RuntimeError, match="in the middle"):
                count_module(model, (zeros(2, 4),))
        else:
            assert count_module(model, (zeros(2, 4),)) == 2 * 4 * 4
        assert [m.training for m in (model, model.norm, model.layer)] == [True, False, True]
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert torch.equal(torch.get_rng_state(), random)
        assert torch.backends.mha.get_fastpath_enabled()
        assert torch.is_grad_enabled()
        (model.layer(zeros(1, 4)).sum()).backward()  # nothing counts or stands in the way any more

    def test_a_compiled_model_is_counted_as_it_was_written(self) -> None:
        plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        compiled = torch.compile(plain, backend="eager")
        compiled(zeros(3, 4))
        assert count_module(compiled, (zeros(3, 4),)) == 3 * (4 * 8 + 8 * 2)


def fvcore_count(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Return what fvcore's trace of a static part says; it needs formulas for attention, and calls some free work 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        def attention(tensors: list[Any], outputs: list[Any]) -> int:
            queries, keys, values = (tensor.type().sizes() for tensor in tensors[:3])
            return int(prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1]))

        free = ("batch_norm", "group_norm", "layer_norm", "upsample_bilinear2d", "adaptive_avg_pool2d")
        handles = {f"aten::{name}": lambda tensors, outputs: 0 for name in free}
        with torch.no_grad():
            analysis = FlopCountAnalysis(module.eval(), inputs)
            analysis.set_op_handle(**handles, **{"aten::scaled_dot_product_attention": attention})
            return int(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


SMALL = {"model.depth": 3, "model.width": 32, "model.heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "attention_routing": {"model.name": "attention_routing"},
    "attention pooling": {"model.name": "attention_routing", "model.aggregator": "attention"},
    "full_compute": {"model.name": "full_compute"},
    "cheap_compute": {"model.name": "cheap_compute"},
    "no_routing": {"model.name": "no_routing"},
    "vit": {"model.name": "vit", "model.pruning.method": "importance_diversity", "model.pruning.k_anchors": 2,
            "model.pruning.top_m": 5, **SMALL},
    "vit merge": {"model.name": "vit", "model.pruning.method": "merge", "model.pruning.k_anchors": 2,
                  "model.pruning.top_m": 5, **SMALL},
    "conv_net": {"model.name": "conv_net", "model.widths": [8, 16]},
    "early_exit": {"model.name": "early_exit", "model.confidence": 0.1, "model.network.name": "conv_net"},
    "aacn": {"model.name": "aacn", "model.decision.keep_ratio": 0.3},
    "hyperiqa": {"dataset.name": "quality", "model.name": "hyperiqa", "model.crops": 1},
    "hyperiqa cross": {"dataset.name": "quality", "model.name": "hyperiqa", "model.fusion.mode": "cross_scale"},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_fvcore_and_closed_form_agree_on_every_family(family: str) -> None:
    torch.manual_seed(0)
    config = RunConfig.from_dict(FAMILIES[family])
    info = config.dataset.info()
    model = build_model(config.model, info).eval()
    images = torch.rand(5, info.channels, info.input_size, info.input_size)
    report = measure(model, images)  # raises where the batch executed something else than the closed form
    assert torch.equal(report.executed_per_image, report.closed_form_per_image)
    output = model(images)
    for name, part in model.executed_parts(output.units_executed).items():
        assert fvcore_count(part.module, part.inputs) == part.per_unit == count_module(part.module, part.inputs), name


def test_work_that_no_part_counts_is_found() -> None:
    config = RunConfig.from_dict({"model.name": "full_compute"})
    model = build_model(config.model, config.dataset.info()).eval()
    extra = nn.Linear(64, 10)
    model.head.register_forward_hook(lambda layer, inputs, output: output + extra(inputs[0]))
    with pytest.raises(ComputeError, match="differ"):
        measure(model, torch.rand(2, 1, 40, 40))


def counted_alike(model: nn.Module, size: tuple[int, ...]) -> bool:
    """Return whether one image is counted, and as torch's own counter counts it."""
    images = torch.zeros(1, *size, device="meta")
    with FlopCounterMode(display=False) as counter:
        executed = count_module(model.requires_grad_(False), (images,))
    return executed == counter.get_total_flops() / 2 > 0


def torchvision_model(name: str) -> nn.Module:
    from torchvision.models import get_model, regnet

    plan = regnet.BlockParams.from_init_params

    def on_cpu(*args: Any, **kwargs: Any) -> Any:
        with torch.device("cpu"):  # regnet's widths are computed with tensors
            return plan(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(regnet.BlockParams, "from_init_params", on_cpu)
        return get_model(name, weights=None)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "swin_t", "regnet_x_400mf"])
def test_classifiers_of_torchvision(name: str) -> None:
    assert counted_alike(torchvision_model(name), (3, 224, 224))


def test_vit_b_16_is_what_its_paper_says() -> None:
    """17.6 G multiply-adds at 224 pixels; the fused path of eval mode would hide a third of it."""
    block = 197 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 197**2 * 768
    expected = 196 * 3 * 16**2 * 768 + 12 * block + 768 * 1000
    assert count_module(torchvision_model("vit_b_16"), (torch.zeros(1, 3, 224, 224, device="meta"),)) == expected


@pytest.mark.slow
def test_every_classifier_of_torchvision() -> None:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    sizes = {name: (3, 299, 299) if "inception" in name else (3, 224, 224) for name in names}
    assert len(names) >= 80
    assert [name for name in names if not counted_alike(torchvision_model(name), sizes[name])] == []


TIMM = """
    resnet50 resnext50_32x4d convnext_tiny convnextv2_tiny efficientnet_b0 mobilenetv3_large_100
    mobilenetv4_conv_small regnety_032 densenet121 dpn92 inception_v4 xception41 vgg16 darknet53 cspresnet50
    res2net50_26w_4s resnest50d rexnet_100 ghostnet_100 repvgg_a2 dla60 nfnet_f0 tresnet_m vit_small_patch16_224
    vit_base_patch16_siglip_224 vit_base_patch14_dinov2 vit_small_patch16_dinov3 deit_small_distilled_patch16_224
    beit_base_patch16_224 eva02_tiny_patch14_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256
    coatnet_0_rw_224 pvt_v2_b1 poolformer_s12 mixer_b16_224 resmlp_12_224 levit_128 cait_xxs24_224
    xcit_nano_12_p16_224 volo_d1_224 convit_tiny visformer_tiny mvitv2_tiny edgenext_small mobilevit_s
    efficientformer_l1 efficientvit_b0 fastvit_t8 focalnet_tiny_srf davit_tiny hiera_tiny_224 nest_tiny pit_ti_224
    botnet26t_256 samvit_base_patch16 starnet_s1 tiny_vit_5m_224 inception_next_tiny repvit_m1 gcvit_xxtiny
    naflexvit_base_patch16_gap mambaout_tiny
""".split()


@pytest.mark.slow
def test_architectures_of_timm() -> None:
    timm = pytest.importorskip("timm")
    assert len(TIMM) >= 60
    missed = []
    for name in TIMM:
        with torch.device("meta"):
            model = timm.create_model(name)
        try:
            alike = counted_alike(model, model.pretrained_cfg["input_size"])
        except ComputeError:
            alike = False
        missed += [] if alike else [name]
    assert len(missed) <= 0.05 * len(TIMM), missed
