"""Token reduction of the literature: each method against a literal loop and on every host; schedules."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from routing.config.registry import SELECTIONS
from routing.errors import InputError
from routing.models.vit.attention_maps import attention_maps
from routing.models.vit.hosts import host_of
from routing.models.vit.network import VisionTransformer
from routing.models.vit.opened import attend, feed
from routing.models.vit.schedule import Schedule
from routing.models.vit.token_predictor import Predictor
from routing.models.vit.token_pruning import pruned, reduced
from tests.routing.literal_reduction import LITERAL, METHODS

DEPTH, HEADS, PATCHES = 4, 2, 36
LEARNED = "dynamicvit"


def own() -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=24, patch_size=4, channels=3, width=16, heads=HEADS, depth=DEPTH, mlp=32, num_outputs=5
    )
    for parameter in model.parameters():  # larger than at the start of a training: attention that differs
        nn.init.normal_(parameter, std=0.4)
    return model.eval().double()


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 24, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("method", LITERAL)
def test_a_method_is_its_literal_loop(method: str) -> None:
    model, batch = own(), images()
    schedule, literal = LITERAL[method]
    wanted = torch.stack([model.classify(literal(model, tokens)[None])[0] for tokens in model.embed(batch)])
    with reduced(model, method, schedule):
        found = model(batch)
    assert torch.allclose(found, wanted, atol=1e-9)
    assert not torch.allclose(found, model(batch), atol=1e-3)


# -- hosts -------------------------------------------------------------------------------------------------------------


def timm_model(name: str, **settings: Any) -> nn.Module:
    timm = pytest.importorskip("timm.models")
    sizes = {"img_size": 24, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 2}
    model: nn.Module = getattr(getattr(timm, name[0]), name[1])(**sizes, num_classes=5, **settings)
    return model


def open_clip_model(**settings: Any) -> nn.Module:
    transformer = pytest.importorskip("open_clip.transformer")
    return transformer.VisionTransformer(24, 4, width=16, layers=3, heads=2, mlp_ratio=2, output_dim=5, **settings)


VIT, EVA, BEIT = ("vision_transformer", "VisionTransformer"), ("eva", "Eva"), ("beit", "Beit")


def dinov2_of_hugging_face() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2}
    config = transformers.Dinov2Config(image_size=24, patch_size=4, num_labels=5, **sizes)
    return Logits(transformers.Dinov2ForImageClassification(config))


class Logits(nn.Module):
    """A model of Hugging Face as a network from images to logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images).logits
        return logits


def post_norm() -> nn.Module:
    from timm.models.vision_transformer import ResPostBlock

    return timm_model(VIT, block_fn=ResPostBlock)


HOSTS: dict[str, Callable[[], nn.Module]] = {
    "own": lambda: own().float(),
    "torchvision": lambda: torchvision.models.VisionTransformer(
        24, 4, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32
    ),
    "open_clip": open_clip_model,
    "open_clip_custom": lambda: open_clip_model(qk_norm=True, scale_heads=True, scale_attn_inner=True),
    "timm": lambda: timm_model(VIT),
    "timm_scaled": lambda: timm_model(VIT, qk_norm=True, init_values=0.5, qkv_bias=False, reg_tokens=2),
    "timm_post_norm": post_norm,
    "eva": lambda: timm_model(EVA, use_rot_pos_emb=True, init_values=0.5, swiglu_mlp=True),
    "eva_post_norm": lambda: timm_model(EVA, use_post_norm=True, qkv_fused=False),
    "hugging_face": dinov2_of_hugging_face,
    "beit": lambda: timm_model(BEIT, use_rel_pos_bias=True, init_values=0.5),
}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = HOSTS[name]().eval()
    for parameter in model.parameters():  # scales and biases are 1 and 0 at first
        nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", HOSTS)
def test_an_opened_block_is_the_block(name: str) -> None:
    model = built(name)
    host = host_of(getattr(model, "inner", model))
    tokens_BTD = torch.randn(2, host.num_tokens, host.width)
    for block, positions in zip(host.blocks, host.positions(), strict=True):
        whole = host.run(block, tokens_BTD, positions)
        for with_received in (False, True):
            seen = attend(host, block, tokens_BTD, positions, with_received=with_received)
            assert torch.allclose(feed(host, block, seen.tokens), whole, atol=2e-5, rtol=1e-4)
        assert seen.received is not None
        assert torch.equal(seen.received, seen.reader_BT(has_cls=False))
        with torch.enable_grad():  # all images at once, not one by one
            at_once = attend(host, block, tokens_BTD, positions, with_received=True)
        assert torch.equal(seen.received, at_once.received)  # type: ignore[arg-type]
        assert torch.equal(seen.tokens, at_once.tokens)
    captured = attention_maps(getattr(model, "inner", model), torch.randn(2, 3, 24, 24), layers=[0])
    assert captured[0].shape == (2, seen.keys.shape[1], host.num_tokens, host.num_tokens)


@torch.no_grad()
@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("method", METHODS)
def test_every_host_takes_every_method_or_says_why(name: str, method: str) -> None:
    model, batch = built(name), torch.randn(2, 3, 24, 24)
    before, host_model = model(batch), getattr(model, "inner", model)
    schedule = {"tome": 4, "amod": {1: 0.5}}.get(method, {1: 0.7, 2: 0.5})
    has_positions = not host_of(host_model).positions()[0].are_none
    if has_positions and method in ("tome", "evit", "merge"):
        with pytest.raises(InputError, match="cannot take an attention mask"), reduced(host_model, method, schedule):
            model(batch)
    else:
        host = host_of(host_model)
        scored = nn.ModuleDict({str(block): Predictor(host.width) for block in schedule}) if method == LEARNED else None
        with reduced(host_model, method, schedule, k_anchors=3, predictors=scored) as record:
            assert not torch.equal(model(batch), before)
        assert record.tokens_before == host.num_tokens
    assert torch.equal(model(batch), before)
    assert not any("forward" in block.__dict__ or block._forward_pre_hooks for block in host_of(host_model).blocks)


# -- schedules ---------------------------------------------------------------------------------------------------------


def test_a_schedule_keeps_shares_of_what_is_there() -> None:
    shares = Schedule.of({1: 0.7, 2: 0.7, 3: 0.7})
    assert shares.left(130, 4) == {1: 91, 2: 64, 3: 45}  # 130 * .7 = 91, 63.7 -> 64, 44.8 -> 45
    assert shares.left(130, 4, fused=1) == {1: 91, 2: 65, 3: 47}  # 92 * .7 = 64.4 -> 65, 66 * .7 = 46.2 -> 47
    assert shares.left(130, 4, come_back=True) == {1: 91, 2: 91, 3: 91}
    assert Schedule.of({"2": 20, 1: 30}).left(36, 4) == {1: 30, 2: 20}
    assert Schedule.of(20).left(36, 4, first=0, most=lambda present: present // 2) == {0: 18, 1: 9, 2: 5, 3: 3}
    assert Schedule.of(5).left(36, 4, first=0) == {0: 31, 1: 26, 2: 21, 3: 16}
    assert Schedule.of("{4: 0.7, '7': 20}") == Schedule.of({4: 0.7, 7: 20}) == Schedule.of("0.7@4/20@7")
    assert Schedule.of("5").left(36, 4) == {1: 31, 2: 26, 3: 21}
    for schedule in (shares, Schedule.of(5), Schedule.of({1: 1.0, 3: 4})):
        assert Schedule.of(schedule.text()) == schedule


def test_rates_of_a_count_are_what_is_left() -> None:
    for rate in (0.25, 0.4, 0.5, 0.7, 0.9, 1.0):
        for blocks, patches in ((12, 16), (12, 64), (3, 64)):
            schedule = Schedule.of(1).with_rate(rate, patches, blocks)
            left = [patches, *schedule.left(patches, blocks, first=0).values()]
            assert left[-1] == patches - round(patches * (1 - rate))
            taken = [before - after for before, after in itertools.pairwise(left)]
            assert max(taken) - min(taken) <= 1
            if rate < 1:
                assert Schedule.of(schedule.text()) == schedule
    assert Schedule.of("32/3").left(64, 4) == {1: 53, 2: 43, 3: 32}
    assert Schedule.of(1).with_rate(1.0, 16, 12).left(16, 12, first=0, fused=1) == dict.fromkeys(range(12), 16)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({4: 0.7}, r"block 4, but the model has blocks 0 to 3 \(valid: 1 to 3\)"),
        ({0: 0.7}, r"block 0, but the model has blocks 0 to 3 \(valid: 1 to 3\)"),
        ({1: 0}, "block 1 keeps 0 of its patches"),
        ({1: 0.0}, "block 1 keeps 0 of its patches"),
        ({1: 1.5}, "block 1 keeps 1.5 of its patches"),
        ({1: float("nan")}, "block 1 keeps nan of its patches"),
        ({1: 1}, "block 1 would leave 1 of 36 patches"),
        ({1: 0.3, 2: 0.05}, "block 2 would leave 1 of 11 patches"),
        ({1: 40}, "block 1 keeps 40 patches, but 36 are there"),
        (12, r"block 3 would leave 0 of 12 patches \(valid: at least 2 everywhere\)"),
        (0, "takes no token away"),
        ({}, "takes no token away"),
        (True, "is no schedule"),
        ("fast", "is no schedule"),
        ("0.7@1/0.5@1", "is no schedule"),
        ("{4: }", "is no schedule"),
        ("{1: 0.5", r"is no schedule \(valid: .* as text 0.7@4/0.7@7/0.7@10"),
        ("{1: 0.5, 1: 0.7}", "is no schedule"),
        ({"1": 0.5, 1: 0.7}, "is no schedule"),
        ({1.9: 0.5}, "is no schedule"),
        ({True: 0.5}, "is no schedule"),
        ({-1: 0.5}, "is no schedule"),
        (float("inf"), "is no schedule"),
        (7.9, "is no schedule"),
        ("7.9", "is no schedule"),
        ("1/0", "is no schedule"),
    ],
)
def test_schedules_that_cannot_be(schedule: Any, message: str) -> None:
    with pytest.raises(InputError, match=message), reduced(own(), "cls_attention", schedule):
        pass


@pytest.mark.parametrize(
    ("method", "schedule", "message"),
    [
        ("tome", {0: 16}, r"block 0 would merge 20 of 37 tokens, but tome merges pairs, at most 18 there"),
        ("amod", {1: 0.5, 2: 0.5}, "blocks 1 and 2; amod reads the attention of the block before"),
        ("amod", 4, "blocks 1 and 2; amod"),
        ("amod", {0: 0.5}, r"block 0, .*valid: 1 to 3"),
        ("tom", 4, "unknown token method 'tom'; did you mean 'tome'"),
    ],
)
def test_schedules_that_a_method_cannot_take(method: str, schedule: Any, message: str) -> None:
    with pytest.raises(InputError, match=message), reduced(own(), method, schedule):
        pass


@torch.no_grad()
@pytest.mark.parametrize("method", ["importance_diversity", "cls_attention", "diversity", "random", "merge"])
def test_a_schedule_of_one_block_is_the_choice_there(method: str) -> None:
    model, batch = own(), images()
    with pruned(model, 5, 13, 0.5, start_layer=2, method=method) as record:
        wanted, kept = model(batch), record.kept
    with reduced(model, method, {2: 0.5}, k_anchors=5) as record:
        assert torch.equal(model(batch), wanted)
    assert kept is None or (record.kept is not None and torch.equal(record.kept, kept))


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_every_method_names_its_source(method: str) -> None:
    assert SELECTIONS.get(method).source


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_keeping_all_changes_no_bit(method: str) -> None:
    model, batch = own().float(), images().float()
    before = model(batch)
    for schedule in ({1: 1.0, 3: 1.0}, {2: PATCHES}):
        with reduced(model, method, schedule):
            assert torch.equal(model(batch), before)


@torch.no_grad()
def test_choices_of_a_schedule_are_nested() -> None:
    model, batch = own(), images()
    with pruned(model, 4, 20, 0.5) as first, pruned(model, 4, 8, 0.5, start_layer=3) as second:
        wanted = model(batch)
    with reduced(model, "importance_diversity", {1: 24, 3: 12}, k_anchors=4) as record:
        assert torch.equal(model(batch), wanted)
    assert first.kept is not None
    assert second.kept is not None
    assert record.kept is not None
    assert torch.equal(record.kept, first.kept.gather(1, second.kept))
    assert record.kept_at(0) is None
    assert torch.equal(record.kept_at(2), first.kept)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("method", ["tome", "cls_attention"])
def test_no_reduction_begins_inside_one_that_acts_inside_blocks(method: str) -> None:
    model, batch = own(), images()
    with reduced(model, "tome", 4):
        wanted = model(batch)
        with pytest.raises(InputError, match="first leave the context of reduced"), reduced(model, method, 2):
            pass
        assert torch.equal(model(batch), wanted)
    assert not any("forward" in block.__dict__ or block._forward_pre_hooks for block in model.blocks)
