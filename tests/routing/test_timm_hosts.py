"""timm's plain transformers as hosts: every kind of tokens before the patches, of positions and of pooling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.models import build_model
from routing.models.vit.hosts import host_of
from routing.models.vit.model import TimmVit
from routing.models.vit.positions import Prefix
from routing.models.vit.timm_hosts import TimmHost
from routing.models.vit.token_pruning import Pruning, pruned
from routing.models.vit.token_selection import Selection
from tests.routing.literal_selection import attention_seen, literal_choice

timm = pytest.importorskip("timm")

KINDS = {  # one of each: name, pixels, tokens before the patches, whether CLS is one
    "class token": ("vit_tiny_patch16_224", 64, 1, True),
    "registers": ("vit_small_patch14_reg4_dinov2", 56, 5, True),
    "no prefix, mean": ("vit_base_patch16_siglip_gap_224", 64, 0, False),
    "no prefix, attention pool": ("vit_base_patch16_siglip_224", 64, 0, False),
    "a register without CLS": ("vit_medium_patch16_reg1_gap_256", 64, 1, False),
    "distillation": ("deit_tiny_distilled_patch16_224", 64, 2, True),
    "deit3": ("deit3_small_patch16_224", 64, 1, True),
    "flexivit": ("flexivit_small", 64, 1, True),
    "rotary": ("eva02_tiny_patch14_224", 56, 1, True),
    "rotary, registers": ("vit_small_patch16_dinov3", 64, 5, True),
    "rotary, attention pool": ("vit_pe_core_tiny_patch16_384", 64, 1, True),
    "rotary, learned per block": ("vit_small_patch16_rope_mixed_ape_224", 64, 1, True),
    "relative bias": ("beitv2_base_patch16_224", 64, 1, True),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's models with all their parts, but 3 blocks 48 wide: nothing here depends on the size."""
    build = timm.create_model
    sizes = {"embed_dim": 48, "num_heads": 2, "depth": 3}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: build(name, **{**sizes, **given}))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, int, int, bool]:
    return KINDS[request.param]


def build(kind: tuple[str, int, int, bool]) -> tuple[nn.Module, Tensor]:
    """Return a model with random weights in every place (biases of positions start at 0), and images."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(kind[0], img_size=kind[1], num_classes=5).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model, torch.randn(2, 3, kind[1], kind[1])


@torch.no_grad()
def test_without_reduction_and_keeping_all_no_bit_changes(kind: tuple[str, int, int, bool]) -> None:
    model, images = build(kind)
    host, expected = host_of(model), model(images)
    assert isinstance(host, TimmHost)
    assert host.prefix == Prefix(kind[2], kind[3])
    tokens = host.embed(images)
    assert tokens.shape[1] == host.num_tokens
    for block, positions in zip(host.blocks, host.positions(), strict=True):
        tokens = host.run(block, tokens, positions)
    assert torch.equal(model.forward_head(model.norm(tokens)), expected)
    with pruned(model, 3, host.num_patches - 3):
        assert torch.equal(model(images), expected)
    with pruned(model, 2, 4) as record:
        assert not torch.equal(model(images), expected)
    assert record.kept is not None
    assert record.kept[:, : kind[2]].tolist() == [list(range(kind[2]))] * 2
    assert torch.equal(model(images), expected)


@torch.no_grad()
def test_kept_tokens_are_those_of_a_literal_loop(kind: tuple[str, int, int, bool]) -> None:
    """Attention as the library's own block computes it; then the four steps, one token after another."""
    model, images = build(kind)
    host, first = host_of(model), kind[2]
    with attention_seen() as seen:
        entering: list[Tensor] = []
        handle = host.blocks[1].register_forward_pre_hook(lambda _, args: entering.append(args[0]))
        model(images)
        handle.remove()
    normed = host.parts(host.blocks[1])[0](entering[0])
    with pruned(model, 2, 4, 0.5) as record:
        model(images)
    assert record.kept is not None
    for image in range(2):
        assert record.kept[image].tolist() == literal_choice(seen[1][image], normed[image], first, kind[3])


@torch.no_grad()
def test_positions_travel_with_the_kept_tokens(kind: tuple[str, int, int, bool]) -> None:
    """A block on some tokens gives them what it gives them among all, when nobody can look at the others."""
    model, images = build(kind)
    host, first = host_of(model), kind[2]
    assert isinstance(host, TimmHost)
    tokens, positions = host.embed(images), host.positions()[1]
    block, count = host.blocks[1], host.num_tokens
    kept = torch.stack([torch.tensor([*range(first), *(first + torch.tensor(p))]) for p in ([1, 4, 6], [0, 2, 7])])
    hidden = torch.ones(2, 1, 1, count).masked_fill(torch.zeros(2, count).scatter(1, kept, 1)[:, None, None] > 0, 0)
    mask = torch.zeros(2, 1, 1, count).masked_fill(hidden > 0, -torch.inf).expand(-1, -1, count, -1)
    if positions.bias is not None:
        among = host.run(block, tokens, type(positions)(bias=positions.bias + mask))
    else:
        rope = {} if positions.rope is None else {"rope": positions.rope}
        among = block(tokens, attn_mask=mask, **rope)
    index = kept[..., None].expand(-1, -1, tokens.shape[2])
    alone = host.run(block, tokens.gather(1, index), positions.of(kept, first, count))
    torch.testing.assert_close(alone, among.gather(1, index), atol=1e-5, rtol=1e-4)


def test_cost_of_every_kind_is_its_trace(kind: tuple[str, int, int, bool]) -> None:
    keys = {"model.name": "timm_vit", "model.architecture": kind[0], "model.pruning.method": "importance_diversity",
            "model.pruning.k_anchors": 2, "model.pruning.top_m": 4}  # fmt: skip
    info = DataInfo("classification", 3, kind[1], 5, (0.5,) * 3, (0.5,) * 3)
    model = build_model(RunConfig.from_dict(keys).model, info).eval()
    assert isinstance(model, TimmVit)
    report = measure(model, torch.randn(2, 3, kind[1], kind[1]))
    assert torch.equal(report.executed_per_image, report.closed_form_per_image)
    assert report.closed_form_per_image[0] < model.dense_flops


@torch.no_grad()
@pytest.mark.parametrize("name", ["registers", "no prefix, mean", "distillation"])
def test_merging_leaves_the_tokens_before_the_patches_in_their_places(name: str) -> None:
    model, images = build(KINDS[name])
    seen: list[Tensor] = []
    host, first = host_of(model), KINDS[name][2]
    with pruned(model, 2, 4, method="merge"):
        before = host.blocks[0].register_forward_hook(lambda _, args, out: seen.append(out))
        after = host.blocks[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model(images)
        before.remove()
        after.remove()
    assert seen[1].shape[1] == first + 6
    assert torch.equal(seen[0][:, :first], seen[1][:, :first])


@torch.no_grad()
@pytest.mark.parametrize("name", ["rotary", "relative bias"])
def test_merged_tokens_have_no_positions(name: str) -> None:
    model, images = build(KINDS[name])
    with pytest.raises(InputError, match=r"'merge' cannot take .* positions inside attention"):
        with pruned(model, 2, 4, method="merge"):
            model(images)
    with pytest.raises(InputError, match=r"'merge' cannot take .* positions inside attention"):
        Pruning(Selection(2, 4), method="merge").on(host_of(model))
    assert not any("_get_rel_pos_bias" in module.__dict__ for module in model.modules())


@torch.no_grad()
def test_open_clip_towers_of_timm() -> None:
    towers = pytest.importorskip("open_clip.timm_model")
    tower = towers.TimmModel("vit_base_patch16_siglip_224", embed_dim=8, pool="map", proj="none")
    images = torch.randn(2, 3, 224, 224)
    tower.eval()
    expected = tower(images)
    with pruned(tower, 2, 194):
        assert torch.equal(tower(images), expected)
    with pruned(tower, 2, 3) as record:
        assert not torch.equal(tower(images), expected)
    assert record.kept is not None
    assert record.kept.shape == (2, 5)
