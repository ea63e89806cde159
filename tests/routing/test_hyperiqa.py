"""HyperIQA: networks per image, what the optimiser holds, compute exactly, the knob."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.evaluation.compute import expected_flops, measure
from routing.models import build_model
from routing.models.hyperiqa.crops import CROP_PLACES, crop, crop_each, random_places, training_view
from routing.models.hyperiqa.hyper_head import HyperHead, LocalDistortion
from routing.models.hyperiqa.model import HyperIqa
from routing.models.hyperiqa.section import HyperIqaSection
from routing.training.optimizer import make_optimizer

MODES = ("single", "concat", "uniform", "attention", "spatial", "cross_scale")


def config_of(**keys: Any) -> RunConfig:
    model = {f"model.{key}": value for key, value in keys.items()}
    return RunConfig.from_dict({"dataset.name": "quality", "model.name": "hyperiqa", "model.crop_size": 32, **model})


def built(**keys: Any) -> HyperIqa:
    torch.manual_seed(0)
    config = config_of(**keys)
    model = build_model(config.model, config.dataset.info())
    assert isinstance(model, HyperIqa)
    return model.eval()


def images(count: int = 4, size: int = 48) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


class TestHead:
    """The hyper-network and the networks it writes."""

    def test_two_images_get_two_networks(self) -> None:
        head = HyperHead(20, 4, 8, (16, 8))
        target = head.target(torch.randn(2, 20, 4, 4))
        assert [weight.shape for weight in target.weights] == [(2, 8, 16), (2, 1, 8)]
        assert [bias.shape for bias in target.biases] == [(2, 8), (2, 1)]
        for parameter in (*target.weights, *target.biases):
            assert not torch.allclose(parameter[0], parameter[1])

    def test_target_network_by_hand(self) -> None:
        head = HyperHead(20, 4, 8, (16, 8))
        fused = torch.randn(3, 20, 4, 4)
        target, content = head.target(fused), head.content(fused.mean((2, 3)))
        for index, quality in enumerate(head(fused)):
            hidden = torch.sigmoid(target.weights[0][index] @ content[index] + target.biases[0][index])
            torch.testing.assert_close(quality, (target.weights[1][index] @ hidden + target.biases[1][index])[0])

    def test_gradient_reaches_every_parameter(self) -> None:
        head = HyperHead(20, 4, 8, (16, 8, 4))
        head(torch.randn(2, 20, 4, 4)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


class TestHyperIqasHead:
    """The head of the paper: five layers, three reductions, a content vector with a piece of every stage."""

    @pytest.fixture
    def model(self) -> HyperIqa:
        return built(**{"backbone.name": "resnet18", "fusion.mode": "concat"})

    def test_target_network(self, model: HyperIqa) -> None:
        target = model.head.target(torch.randn(2, model.fusion.width, 7, 7))
        widths = [224, 112, 56, 28, 14, 1]
        assert [tuple(weight.shape[1:]) for weight in target.weights] == [(b, a) for a, b in pairwise(widths)]
        assert [layer.out_channels for layer in model.head.reduce if isinstance(layer, nn.Conv2d)] == [1024, 512, 112]

    def test_content_is_16_of_each_stage_and_the_rest_of_the_last(self, model: HyperIqa) -> None:
        assert isinstance(model.distortion, nn.ModuleList)
        assert [module.width for module in model.distortion] == [16, 16, 16, 176]
        features = model._features(images(), 4)
        maps = model.backbone(images(), 4)
        first = model.distortion[0]
        assert isinstance(first, LocalDistortion)
        by_hand = first.content(F.adaptive_avg_pool2d(F.conv2d(maps[0], first.reduce.weight), 8).flatten(1))
        torch.testing.assert_close(features.content[0], by_hand)
        torch.testing.assert_close(features.content[3], model.distortion[3].content(maps[3].mean((2, 3))))

    def test_stages_that_are_not_kept_add_nothing(self, model: HyperIqa) -> None:
        two, four = (model._features(images(), scales) for scales in (2, 4))
        assert len(two.content) == 2
        for kept, all_of_them in zip(two.content, four.content, strict=False):
            torch.testing.assert_close(kept, all_of_them)
        torch.testing.assert_close(model._judge(two, 2)[0], model._judge(four, 2)[0])

    @pytest.mark.parametrize("mode", ["single", "attention"])
    def test_compute_is_exact(self, mode: str) -> None:
        model = built(**{"backbone.name": "resnet18", "fusion.mode": mode})
        for value in [model.default_knob_value, *model.knob_values([])][:3]:
            assert value is not None
            model.set_knob(value)
            report = measure(model, images(2))
            assert torch.equal(report.executed_per_image, report.closed_form_per_image)

    def test_every_parameter_gets_a_gradient(self) -> None:
        model = built(**{"backbone.name": "resnet18"}).train()
        output = model(images())
        (output.prediction.sum() + output.auxiliary["fewer_scales"][1].sum()).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []

    def test_weights_of_a_resnet(self, model: HyperIqa, tmp_path: Path) -> None:
        from torchvision.models import resnet18

        network = resnet18().eval()
        torch.save(network.state_dict(), tmp_path / "resnet.pth")
        model.backbone.load_pretrained(str(tmp_path / "resnet.pth"))
        stem = network.maxpool(network.relu(network.bn1(network.conv1(images()))))
        expected = network.layer4(network.layer3(network.layer2(network.layer1(stem))))
        torch.testing.assert_close(model.backbone(images(), 4)[3], expected)
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "x.pth")
        with pytest.raises(InputError, match=r"model.backbone.weights .*x.pth: do not fit resnet18: '.*' is missing"):
            model.backbone.load_pretrained(str(tmp_path / "x.pth"))


def test_parameters_stand_in_the_documentation() -> None:
    """docs/image_quality.md: parameters by part, in millions."""
    page = (Path(__file__).parents[2] / "docs" / "image_quality.md").read_text()
    info = DataInfo("quality", 3, 224, 1, (0.5,) * 3, (0.2,) * 3)
    for backbone, mode in (("swin_t", "single"), ("swin_t", "concat"), ("swin_t", "attention"), ("resnet50", "single")):
        with torch.device("meta"):
            model = HyperIqa(
                HyperIqaSection.model_validate({"backbone": {"name": backbone}, "fusion": {"mode": mode}}), info
            )
        parts = dict(model.named_children())
        counts = [sum(p.numel() for p in parts[name].parameters()) for name in ("backbone", "fusion", "distortion")]
        reduce = sum(p.numel() for p in model.head.reduce.parameters())
        rest = sum(p.numel() for p in model.head.parameters()) - reduce
        row = [*counts, reduce, rest, model.num_parameters()]
        cells = " | ".join(f"{count / 1e6:.2f}" for count in row)
        assert f"| `{backbone}`, `{mode}` | {cells} |" in page, cells


@pytest.mark.parametrize("mode", MODES)
def test_batch_equals_one_by_one(mode: str) -> None:
    model = built(**{"fusion.mode": mode})
    together = model(images()).prediction
    assert together.shape == (4,)
    apart = torch.cat([model(image.unsqueeze(0)).prediction for image in images()])
    torch.testing.assert_close(together, apart)


def test_optimizer_holds_every_parameter() -> None:
    config = config_of()
    model = built()
    optimizer = make_optimizer(model, config.training)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters()}


def test_every_parameter_moves_in_every_epoch(tiny_quality: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The public code of HyperIQA rebuilds its optimiser without the hyper-network after the first epoch."""
    import routing.runner as run_module

    states: list[dict[str, Tensor]] = []
    original = run_module.train_epoch

    def remembered(model: HyperIqa, *args: Any, **keys: Any) -> dict[str, float]:
        losses = original(model, *args, **keys)
        states.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return losses

    monkeypatch.setattr(run_module, "train_epoch", remembered)
    keys = {"training.num_epochs": 3, "training.lr_schedule": "constant", "model.fewer_scales_weight": 0.5}
    run_module.run(RunConfig.from_dict({**tiny_quality, **keys}))
    for before, after in pairwise(states):
        assert [name for name in before if torch.equal(before[name], after[name])] == []


class TestCompute:
    """Executed equals closed form; what is left out is not paid for."""

    @pytest.mark.parametrize("mode", MODES)
    def test_exactly(self, mode: str) -> None:
        model = built(**{"fusion.mode": mode, "crops": 3})
        report = measure(model, images())
        assert torch.equal(report.executed_per_image, report.closed_form_per_image)
        assert report.executed_per_image[0] == expected_flops(config_of(**{"fusion.mode": mode, "crops": 3}))

    def test_torch_agrees(self) -> None:
        model = built()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(images(1))
        assert counter.get_total_flops() / 2 == pytest.approx(
            float(measure(model, images(1)).executed_per_image[0]), rel=0.01
        )

    def test_first_conv_by_hand(self) -> None:
        # 32 pixels, stride 2: 16 x 16 places, 3 x 3 x 3 -> 16
        parts = built().counted_parts()
        assert parts["stage_1"].per_unit == 16 * 16 * 27 * 16

    def test_crops_multiply_and_scales_subtract(self) -> None:
        model = built()
        outputs = list(model.along_knob(images(), ["scales=4,crops=1", "scales=4,crops=5", "scales=2,crops=1"]))
        one, five, two = (int(model.closed_form(output.units_executed, 4)[0]) for output in outputs)
        parts = model.counted_parts()
        assert five == 5 * one
        cost = {name: part.per_unit for name, part in parts.items()}
        assert one == sum(cost[name] for name in ("stage_1", "stage_2", "stage_3", "stage_4", "fusion_4", "head"))
        assert two == sum(cost[name] for name in ("stage_1", "stage_2", "fusion_2", "head"))

    def test_stages_that_are_not_kept_do_not_run(self) -> None:
        model, ran = built(), []
        for index, stage in enumerate(model.backbone.stages):
            stage.register_forward_hook(lambda *_, index=index: ran.append(index))
        model.set_knob("scales=2,crops=1")
        model(images())
        assert ran == [0, 1]

    def test_unused_stages_are_not_built(self) -> None:
        model = built(**{"fusion": {"mode": "concat", "scales": [1, 2]}})
        assert len(model.backbone.stages) == 2


class TestKnob:
    """Scales kept and crops averaged."""

    def test_values_and_default(self) -> None:
        model = built()
        assert model.default_knob_value == "scales=4,crops=1"
        assert len(model.knob_values([])) == 4 * 5
        assert built(**{"fewer_scales_weight": 0.0}).knob_values([]) == [f"scales=4,crops={n}" for n in (1, 2, 3, 5, 9)]
        assert built(**{"fewer_scales_weight": 0.0, "crop_size": None}).knob is None

    def test_along_is_what_setting_gives(self) -> None:
        model = built()
        values = model.knob_values([])
        for value, output in zip(values, model.along_knob(images(), values), strict=True):
            model.set_knob(value)
            torch.testing.assert_close(output.prediction, model(images()).prediction)
            assert model.default_knob_value == value

    def test_crops_are_averaged(self) -> None:
        model = built(crops=3)
        singles = []
        for place in CROP_PLACES[:3]:
            part = crop(images(), 32, place)
            singles.append(built()(part).prediction)
        torch.testing.assert_close(model(images()).prediction, torch.stack(singles).mean(0))

    @pytest.mark.parametrize("value", ["scales=5,crops=1", "scales=1,crops=0", "crops=1", "0.5", 0.5])
    def test_bad_values(self, value: str | float) -> None:
        with pytest.raises(InputError, match=r"is not scales=K,crops=N with K in 1..4 and N in 1..9"):
            built().set_knob(value)

    def test_fewer_scales_need_training_for_it(self) -> None:
        with pytest.raises(InputError, match=r"with K in 4..4 and N in 1..9"):
            built(**{"fewer_scales_weight": 0.0}).set_knob("scales=1,crops=1")

    def test_a_wide_image_has_several_crops_of_its_height(self) -> None:
        values = {"name": "hyperiqa", "crop_size": 40, "crops": 3, "fewer_scales_weight": 0.0}
        config = RunConfig.from_dict({"dataset.name": "quality", "model": values})
        section, info = config.model, replace(config.dataset.info(), input_size=40)
        with pytest.raises(InputError, match="all crops are the whole image"):
            build_model(section, info)
        assert build_model(section, replace(info, input_width=64)).default_knob_value == "scales=4,crops=3"


class TestViews:
    """Crops: in place, fixed outside training, random in it."""

    def test_places(self) -> None:
        grid = torch.arange(36.0).view(1, 1, 6, 6)
        assert crop(grid, 2, (0.5, 0.5)).flatten().tolist() == [14, 15, 20, 21]
        assert crop(grid, 2, (1, 0)).flatten().tolist() == [24, 25, 30, 31]

    def test_training_sees_random_mirrored_views(self) -> None:
        torch.manual_seed(0)
        image = torch.arange(36.0).view(1, 1, 6, 6)
        corners = {tuple(training_view(image, 5).flatten()[:2].tolist()) for _ in range(100)}
        # 2 x 2 places, mirrored or not
        assert len(corners) == 8

    def test_every_image_of_a_batch_is_cropped_at_a_place_of_its_own(self) -> None:
        torch.manual_seed(0)
        batch = torch.arange(1600.0).view(1, 1, 40, 40).expand(16, -1, -1, -1)
        assert len({float(view.min()) for view in training_view(batch, 8)}) > 10
        grid = torch.arange(36.0).view(1, 1, 6, 6).expand(2, -1, -1, -1)
        found = crop_each(grid, 2, [(0.5, 0.5), (1, 0)])
        assert found.flatten(1).tolist() == [[14, 15, 20, 21], [24, 25, 30, 31]]

    def test_random_places_belong_to_the_image_and_the_seed(self) -> None:
        batch = images(6)
        places = random_places(batch, 25, seed=0)
        assert len(places) == 25
        assert random_places(batch[2:4], 3, seed=0) == [of_images[2:4] for of_images in places[:3]]
        assert random_places(batch, 25, seed=1) != places
        shares = torch.tensor(places)
        assert 0.4 < float(shares.mean()) < 0.6
        assert len({place for of_images in places for place in of_images}) == 150

    def test_random_crops_are_averaged(self) -> None:
        model = built(**{"crops": 25, "crop_places": "random"})
        places = random_places(images(), 25, seed=0)
        by_hand = [built()(crop_each(images(), 32, of_images)).prediction for of_images in places]
        torch.testing.assert_close(model(images()).prediction, torch.stack(by_hand).mean(0))
        assert model.default_knob_value == "scales=4,crops=25"
        output = next(model.along_knob(images(), ["scales=4,crops=25"]))
        torch.testing.assert_close(output.prediction, model(images()).prediction)

    def test_evaluation_is_fixed(self) -> None:
        model = built()
        assert torch.equal(model(images()).prediction, model(images()).prediction)


def test_weights_are_kept_and_logged() -> None:
    model = built()
    output = model(images())
    assert model.last_fusion_weights is not None
    assert model.last_fusion_weights.shape == (4, 4)
    assert not model.last_fusion_weights.requires_grad
    means = model.last_fusion_weights.mean(0).tolist()
    assert [output.metrics[f"fusion_weight_{stage}"] for stage in (1, 2, 3, 4)] == pytest.approx(means)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model.crop_size": 64}, "model.crop_size 64 is larger than dataset.input_size 48"),
        ({"model.crops": 2, "model.crop_size": None}, "model.crops 2: all crops are the whole image"),
    ],
)
def test_crops_that_cannot_be(keys: dict[str, Any], message: str) -> None:
    config = RunConfig.from_dict({"dataset.name": "quality", "model.name": "hyperiqa", **keys})
    with pytest.raises(InputError, match=message):
        build_model(config.model, config.dataset.info())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model.fusion.scales": [2, 1]}, "must be ascending, each stage once"),
        ({"model.fusion.heads": 3}, "model.fusion.heads 3 does not divide model.fusion.width 64"),
        ({"model.backbone.weights": "DEFAULT"}, "belong to swin_t, swin_s, swin_b and resnets, not to tiny4"),
        ({"model.backbone": {"name": "swin_t", "widths": [1, 2, 3, 4]}}, "widths belong to tiny4, not to swin_t"),
        ({"model.crops": 10}, r"the grid has 9 places \(valid: up to 9, or model.crop_places random\)"),
        ({"model.head.target_widths": [30, 7]}, "210 is no multiple of 16"),
        ({"model.head": {"mode": "hyperiqa", "target_widths": [48, 49]}}, r"holds 48 values .* \(valid: above 48\)"),
        (
            {"dataset.name": "digits"},
            r"'hyperiqa' is not made for dataset.name 'digits'.*valid data sets: quality, koniq10k",
        ),
        (
            {"model.name": "full_compute"},
            "'full_compute' is not made for dataset.name 'quality', whose task is quality",
        ),
        ({"training.loss": "cross_entropy"}, r"not a loss of the task quality .* \(valid: auto, l1, mse\)"),
    ],
)
def test_settings_that_do_not_fit(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig.from_dict({"dataset.name": "quality", "model.name": "hyperiqa", **keys})


def test_crops_lie_inside_images_that_are_higher_than_wide() -> None:
    config = RunConfig.from_dict({"dataset.name": "quality", "model.name": "hyperiqa"})
    narrow = replace(config.dataset.info(), input_size=64, input_width=40)
    model = build_model(config.model, narrow)
    assert isinstance(model, HyperIqa)
    assert model.crop_size == 40
    with torch.no_grad():
        assert model.eval()(torch.randn(2, 3, 64, 40)).prediction.shape == (2,)
    too_large = config.replace(**{"model.crop_size": 48})
    with pytest.raises(InputError, match=r"model.crop_size 48 is larger than dataset.input_width 40"):
        build_model(too_large.model, narrow)
