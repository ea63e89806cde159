"""The attention-augmented conv net: its index maths by hand, its compute exactly, its knob, its backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from routing.config.registry import TORCHVISION_BACKBONES
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.evaluation.compute import count_module, expected_flops, measure
from routing.models import build_model
from routing.models.aacn.model import (
    AttentionAugmentedNet,
    Heads,
    PositionExpert,
    StageAttention,
    keep_largest,
    num_kept,
)
from routing.models.backbones import TorchvisionBackbone
from routing.models.base import VisionModel
from routing.runner import run

IMAGE = (4, 1, 40, 40)


def built(**keys: Any) -> AttentionAugmentedNet:
    torch.manual_seed(0)
    config = RunConfig.from_dict({"model.name": "aacn", **{f"model.{k}": v for k, v in keys.items()}})
    model = build_model(config.model, config.dataset.info())
    assert isinstance(model, AttentionAugmentedNet)
    return model.eval()


def images() -> Tensor:
    return torch.randn(IMAGE, generator=torch.Generator().manual_seed(1))


class TestMaths:
    """The pure functions and small modules, worked out by hand."""

    def test_number_of_positions_kept(self) -> None:
        assert [num_kept(25, ratio) for ratio in (0.001, 0.04, 0.1, 0.5, 1.0)] == [1, 1, 2, 12, 25]

    def test_the_largest_are_kept_image_by_image_and_sum_to_one(self) -> None:
        kept, weights = keep_largest(torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]), 2)
        assert kept.tolist() == [[1, 2], [0, 2]]
        # 0.6 / 0.9, 0.3 / 0.9 and 0.5 / 0.8, 0.3 / 0.8
        torch.testing.assert_close(weights, torch.tensor([[2 / 3, 1 / 3], [0.625, 0.375]]))

    def test_expert_is_the_weighted_sum_of_rectified_rows(self) -> None:
        expert = PositionExpert(2, 1)
        with torch.no_grad():
            expert.layer[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
            expert.layer[0].bias.zero_()
        # rows give relu(3 - 1) = 2 and relu(1 - 5) = 0; 0.25 * 2 + 0.75 * 0 = 0.5
        rows = torch.tensor([[[3.0, 1.0], [1.0, 5.0]]])
        assert expert(rows, torch.tensor([[0.25, 0.75]])).tolist() == [[0.5]]

    def test_expert_of_width_zero_is_the_attended_features_themselves(self) -> None:
        expert = PositionExpert(2, 0)
        assert list(expert.parameters()) == []
        assert expert(torch.tensor([[[4.0, 0.0], [0.0, 8.0]]]), torch.tensor([[0.25, 0.75]])).tolist() == [[1.0, 6.0]]

    def test_decision_is_the_softmax_weighted_sum_of_two_linear_heads(self) -> None:
        heads = Heads(3, 2, 5)
        with torch.no_grad():
            heads.mix.copy_(torch.tensor([0.0, torch.log(torch.tensor(3.0))]))  # softmax: 1/4, 3/4
        features, vector = torch.randn(2, 3), torch.randn(2, 2)
        torch.testing.assert_close(
            heads(features, vector), 0.25 * heads.features(features) + 0.75 * heads.vector(vector)
        )

    def test_readable_attention_is_what_the_fused_kernel_used(self) -> None:
        stage = StageAttention(6, 8, 2)
        positions = torch.randn(3, 9, 6)
        map_BHTT = stage.map_of_heads(positions)
        assert map_BHTT.shape == (3, 2, 9, 9)
        torch.testing.assert_close(map_BHTT.sum(-1), torch.ones(3, 2, 9))
        tokens = stage.embed(positions)
        values = stage.attend.in_proj(tokens)[..., 16:].unflatten(-1, (2, 4)).transpose(1, 2)
        by_hand = stage.attend.out_proj((map_BHTT @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(stage.attend(tokens), by_hand)

    def test_map_and_vector_of_a_stage(self) -> None:
        stage = StageAttention(6, 8, 2)
        map_BT, vector_BD = stage(torch.randn(3, 9, 6))
        torch.testing.assert_close(map_BT.sum(1), torch.ones(3))
        assert vector_BD.shape == (3, 8)


class TestModel:
    """Branches put together."""

    def test_only_kept_positions_reach_the_decision(self) -> None:
        model = built(**{"decision.keep_ratio": 0.2})
        attended = model.attend(images())
        seen: list[tuple[int, ...]] = []
        for expert in model.decision.experts:
            expert.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
        output = model.decide(attended, 0.2)
        assert seen == [(4, 5, 8), (4, 5, 16), (4, 5, 32)]
        assert output.routing_ratio is not None
        assert output.routing_ratio.tolist() == pytest.approx([0.2] * 4)

    def test_dropped_positions_cannot_change_the_prediction_and_kept_ones_do(self) -> None:
        model = built()
        attended = model.attend(images())
        before = model.decide(attended, 0.2).prediction
        least = attended.maps[2].argmin(1)
        attended.positions[2][torch.arange(4), least] += 100
        assert torch.equal(model.decide(attended, 0.2).prediction, before)
        assert not torch.equal(model.decide(attended, 1.0).prediction, before)

    def test_keeping_all_is_the_plain_weighted_sum(self) -> None:
        """The gathered form at K = T agrees with the form that gathers nothing."""
        model = built()
        attended = model.attend(images())
        kept, weights = keep_largest(attended.maps[0], 25)
        gathered = attended.positions[0].gather(1, kept.unsqueeze(2).expand(-1, -1, 8))
        expert = model.decision.experts[0]
        torch.testing.assert_close(expert(gathered, weights), expert(attended.positions[0], attended.maps[0]))

    def test_every_branch_gets_a_gradient_also_when_positions_are_dropped(self) -> None:
        model = built(**{"decision.keep_ratio": 0.2}).train()
        output = model(images())
        weight, logits = output.auxiliary["attention"]
        assert weight == 0.5
        targets = torch.arange(4)
        (F.cross_entropy(output.prediction, targets) + weight * F.cross_entropy(logits, targets)).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_alpha_zero_is_no_term_at_all(self) -> None:
        model = built(**{"attention.alpha": 0.0}).train()
        assert model(images()).auxiliary == {}
        assert model.loss_terms() == ("task",)

    def test_without_attention_all_positions_count_the_same(self) -> None:
        model = built(**{"attention.enabled": False})
        attended = model.attend(images())
        assert attended.vector_BD is None
        assert all(torch.equal(m, torch.full((4, 25), 1 / 25)) for m in attended.maps)
        assert model.knob is None
        assert model(images()).routing_ratio is None
        assert list(model.parts()) == ["backbone", "decision"]
        with pytest.raises(InputError, match=r"model\.attention\.enabled false: there is no attention to look at"):
            model.attention_maps(images())

    def test_attended_stages_are_the_last_ones(self) -> None:
        model = built(**{"attention.stages": 2})
        assert list(model.attention_maps(images())) == ["stage2", "stage3"]
        assert [part for part in model.counted_parts() if "stage1" in part] == []

    def test_a_stage_smaller_than_the_grid_keeps_its_own(self) -> None:
        model = built(**{"attention.grid": 8})
        assert model.grids == [8, 8, 5]
        assert {name: m.shape for name, m in model.inner_attention_maps(images()).items()} == {
            "stage1 self-attention": (4, 4, 64, 64),
            "stage2 self-attention": (4, 4, 64, 64),
            "stage3 self-attention": (4, 4, 25, 25),
        }

    def test_dropout_of_the_heads_only_in_training(self) -> None:
        model = built(**{"decision.dropout": 0.5})
        assert torch.equal(model.eval()(images()).prediction, built().eval()(images()).prediction)
        model.train()
        assert not torch.equal(model(images()).prediction, model(images()).prediction)
        assert torch.equal(
            built().train()(images()).prediction, built(**{"decision.dropout": 0.0}).train()(images()).prediction
        )

    def test_the_map_to_look_at_is_the_one_that_decides(self) -> None:
        model = built(**{"decision.keep_ratio": 0.2}).eval()
        attended = model.attend(images())
        for shown, map_BT in zip(model.attention_maps(images()).values(), attended.maps, strict=True):
            torch.testing.assert_close(shown, map_BT[:, None, None])

    def test_alternation_trains_a_pretrained_backbone_in_no_phase(self) -> None:
        assert built().alternation() == {"attention": ("attention",), "decision": ("backbone", "decision")}
        pretrained = built(**{"backbone.name": "resnet18", "backbone.weights": "DEFAULT"})
        assert pretrained.alternation() == {"attention": ("attention",), "decision": ("decision",)}


class TestCompute:
    """Multiply-adds: by hand, executed, and along the knob."""

    def test_closed_form_by_hand(self) -> None:
        model = built(**{"attention.stages": 1})
        # backbone: 9 * (1 * 8 * 20^2 + 8 * 16 * 10^2 + 16 * 32 * 5^2)
        backbone = 9 * (1 * 8 * 400 + 8 * 16 * 100 + 16 * 32 * 25)
        # 25 positions: embed 32 * 16, q k v and out 4 * 16 * 16, score 16, vector 16; q k^T and its sum 2 * 25^2 * 16
        attention = 25 * (32 * 16 + 4 * 16 * 16 + 16 + 16) + 2 * 625 * 16
        # 25 positions: 32 * 128 and the sum 128; heads on 128 features and 16 values of the vector
        decision = 25 * (32 * 128 + 128) + (128 + 16) * 10
        assert model.expected_flops() == backbone + attention + decision
        assert measure(model, images()).executed_per_image.tolist() == [backbone + attention + decision] * 4

    @pytest.mark.parametrize(
        "keys",
        [
            {},
            {"decision.keep_ratio": 0.3, "attention.grid": 8, "attention.heads": 1},
            {"decision.width": 0, "attention.stages": 2},
            {"attention.enabled": False},
            {"backbone.channels": [4, 8, 8, 16], "attention.grid": 3},
            {"backbone.name": "resnet18", "decision.keep_ratio": 0.5},
        ],
    )
    def test_executed_equals_closed_form(self, keys: dict[str, Any]) -> None:
        model = built(**keys)
        report = measure(model, images())
        assert torch.equal(report.executed_per_image, report.closed_form_per_image)
        assert report.executed_per_image.double().mean() == model.expected_flops()

    def test_expected_before_training_is_what_a_run_costs(self, tiny: dict[str, Any]) -> None:
        config = RunConfig.from_dict({**tiny, "model.name": "aacn", "model.decision.keep_ratio": 0.4})
        record = run(config)
        assert expected_flops(config) == record.metrics["flops"]
        assert record.metrics["flops"] < record.metrics["flops_dense"]
        assert record.metrics["routing_ratio"] == pytest.approx(0.4)

    def test_operating_points_are_what_a_run_at_that_ratio_does(self, tiny: dict[str, Any], folder: Path) -> None:
        config = RunConfig.from_dict({**tiny, "model.name": "aacn"})
        record = run(config, out=folder)
        assert [point.knob for point in record.points] == ["keep_ratio"] * len(record.points)
        kept = [round(75 * (point.routing_ratio or 0)) for point in record.points]
        assert kept == [75, 3, 6, 9, 12, 15, 18, 24, 30, 36, 57]  # 75 first: the default; no count twice
        flops = [point.flops for point in record.points[1:]]
        assert flops == sorted(flops)
        moved = run(config.replace(**{"evaluation.knob_value": record.points[3].knob_value}))
        assert moved.metrics["flops"] == record.points[3].flops
        assert moved.metrics["val_accuracy"] == record.points[3].metrics["val_accuracy"]


class TestTorchvisionBackbone:
    """torchvision's conv nets by name."""

    def test_resnet18_at_its_usual_size(self) -> None:
        backbone = TorchvisionBackbone("resnet18", 3, 224).eval()
        assert [(stage.channels, stage.size) for stage in backbone.stages] == [(64, 56), (128, 28), (256, 14), (512, 7)]
        # torchvision counts 1.814 G multiply-adds for the whole network; its classifier is 512 * 1000 of them
        assert backbone.multiply_adds == 1_814_073_344 - 512_000
        assert count_module(backbone, (torch.zeros(1, 3, 224, 224),)) == backbone.multiply_adds

    @pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5", "squeezenet1_1"])
    def test_stages_and_closed_form_of_other_families(self, name: str) -> None:
        backbone = TorchvisionBackbone(name, 1, 40).eval()
        features = backbone(torch.zeros(2, 1, 40, 40))
        assert [f.shape[1:] for f in features] == [(s.channels, s.size, s.size) for s in backbone.stages]
        assert count_module(backbone, (torch.zeros(1, 1, 40, 40),)) == backbone.multiply_adds

    @pytest.mark.parametrize("name", ["vgg11", "densenet121", "convnext_tiny"])
    def test_images_that_shrink_to_nothing(self, name: str) -> None:
        with pytest.raises(InputError, match=f"model.backbone.name '{name}': images of 28 pixels are too small"):
            TorchvisionBackbone(name, 1, 28)

    def test_weights_from_a_file(self, folder: Path) -> None:
        from torchvision.models import get_model

        trained = get_model("resnet18", weights=None)
        torch.save(trained.state_dict(), folder / "resnet18.pth")
        config = RunConfig.from_dict(
            {
                "model.name": "aacn",
                "model.backbone.name": "resnet18",
                "model.backbone.weights": str(folder / "resnet18.pth"),
            }
        )
        model = build_model(config.model, config.dataset.info())
        model.initialise(config.model)
        assert torch.equal(model.get_parameter("backbone.layers.conv1.weight"), trained.conv1.weight)
        assert model.alternation()["decision"] == ("decision",)

    def test_weights_that_do_not_fit_are_refused(self, folder: Path) -> None:
        backbone = TorchvisionBackbone("resnet18", 3, 64)
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, folder / "part.pth")
        torch.save({"conv1.weight": torch.zeros(1)}, folder / "shape.pth")
        (folder / "bad.pth").write_bytes(b"garbage")
        for file, message in (
            ("part.pth", r"do not fit resnet18: '.*' is missing"),
            ("shape.pth", r"do not fit resnet18: .*conv1\.weight"),
            ("bad.pth", r"not a readable file of weights"),
            ("none.pth", r"no such file"),
        ):
            with pytest.raises(InputError, match=message):
                backbone.load_pretrained(str(folder / file))
        with pytest.raises(InputError, match=r"no such weights; did you mean 'IMAGENET1K_V1'\?"):
            backbone.load_pretrained("IMAGENET1K_V9")

    def test_weights_without_a_network_are_one_clear_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_network(*args: Any, **kwargs: Any) -> None:
            raise OSError("Name or service not known")

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
        with pytest.raises(
            InputError, match=r"cannot be downloaded \(Name or service not known\); save https://\S+ into"
        ):
            TorchvisionBackbone("resnet18", 3, 64).load_pretrained("DEFAULT")

    def test_images_it_cannot_take(self) -> None:
        with pytest.raises(InputError, match="takes images of 1 or 3 channels; these have 4"):
            TorchvisionBackbone("resnet18", 4, 64)
        with pytest.raises(InputError, match=r"model\.attention\.stages 5: backbone 'resnet18' has 4 stages at 40"):
            built(**{"backbone.name": "resnet18", "attention.stages": 5})

    def test_every_name_is_one_of_torchvision(self) -> None:
        from torchvision import models

        assert set(TORCHVISION_BACKBONES) <= set(models.list_models(module=models))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"backbone.name": "resnet19"},
            r"model\.backbone\.name: unknown backbone 'resnet19'; did you mean 'resnet18'\?",
        ),
        ({"backbone.weights": "DEFAULT"}, r"there are no pretrained weights of 'conv'"),
        (
            {"backbone.name": "resnet18", "backbone.channels": [4, 8]},
            r"model\.backbone\.channels belongs to backbone 'conv', not to 'resnet18'",
        ),
        ({"backbone.channels": []}, r"model\.backbone\.channels: .*at least 1 item"),
        (
            {"attention.heads": 3},
            r"model\.attention\.heads 3 does not divide model\.attention\.width 16 \(valid: 1, 2, 4",
        ),
        ({"attention.stages": 4}, r"model\.attention\.stages 4: the backbone has 3 stages \(valid: 1 to 3\)"),
        ({"attention.enabled": False, "decision.keep_ratio": 0.5}, r"keep_ratio 0\.5 needs model\.attention\.enabled"),
        ({"decision.keep_ratio": 0}, r"model\.decision\.keep_ratio: must be greater than 0"),
        ({"attention.aplha": 1}, r"unknown key 'model\.attention\.aplha'; did you mean 'model\.attention\.alpha'\?"),
    ],
)
def test_bad_input(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig.from_dict({"model.name": "aacn", **{f"model.{key}": value for key, value in keys.items()}})


@pytest.mark.parametrize(
    ("enabled", "value", "message"),
    [
        (False, 0.5, r"evaluation\.knob_value 0\.5: AttentionAugmentedNet has no compute knob"),
        (True, "half", r"evaluation\.knob_value 'half': not a keep ratio \(valid: 0 < ratio <= 1\)"),
        (True, 2, r"evaluation\.knob_value 2\.0: not a keep ratio"),
    ],
)
def test_a_knob_value_the_model_cannot_have(enabled: bool, value: float | str, message: str) -> None:
    config = RunConfig.from_dict({"evaluation.knob_value": value})
    assert config.evaluation.knob_value is not None
    with pytest.raises(InputError, match=message):
        built(**{"attention.enabled": enabled}).set_knob(config.evaluation.knob_value)


def test_a_knob_that_a_model_does_not_set_is_said() -> None:
    model = built(**{"attention.enabled": False})
    model.knob = "width"
    with pytest.raises(InputError, match=r"knob_value 0\.5: AttentionAugmentedNet cannot set its knob 'width'"):
        VisionModel.set_knob(model, 0.5)
