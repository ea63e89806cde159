"""Token pruning in real models: adapters that leave no trace, masks that travel along, costs that add up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from routing.config.registry import SELECTIONS
from routing.errors import InputError
from routing.evaluation.compute import count_module
from routing.models.vit.attention_maps import attention_maps
from routing.models.vit.hosts import host_of
from routing.models.vit.network import VisionTransformer
from routing.models.vit.positions import Positions
from routing.models.vit.token_methods import TokenMethod
from routing.models.vit.token_pruning import Pruning, pruned, pruned_by, select_tokens
from routing.models.vit.token_selection import Selection

CHOOSERS = [
    name
    for name in SELECTIONS
    if issubclass(SELECTIONS.get(name), TokenMethod) and not SELECTIONS.get(name).needs_schedule
]


def own() -> VisionTransformer:
    return VisionTransformer(image_size=24, patch_size=4, channels=3, width=16, heads=2, depth=4, mlp=32, num_outputs=5)


def from_torchvision() -> nn.Module:
    model = torchvision.models.VisionTransformer(24, 4, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32)
    nn.init.normal_(model.heads.head.weight)
    return model


def from_open_clip(**settings: Any) -> nn.Module:
    transformer = pytest.importorskip("open_clip.transformer")
    return transformer.VisionTransformer(24, 4, width=16, layers=4, heads=2, mlp_ratio=2, output_dim=5, **settings)


def from_timm(**settings: Any) -> nn.Module:
    timm = pytest.importorskip("timm.models.vision_transformer")
    sizes = {"img_size": 24, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2, "mlp_ratio": 2}
    return timm.VisionTransformer(**sizes, num_classes=5, **settings)


HOSTS: dict[str, Callable[[], nn.Module]] = {
    "own": own,
    "torchvision": from_torchvision,
    "timm": from_timm,
    "timm_custom": lambda: from_timm(qk_norm=True, init_values=0.5, qkv_bias=False, global_pool="avg"),
    "open_clip": from_open_clip,
    "open_clip_custom": lambda: from_open_clip(qk_norm=True),
}


@pytest.fixture(params=HOSTS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return HOSTS[request.param]().eval()


def images(count: int = 5) -> Tensor:
    return torch.randn(count, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: nn.Module, count: int = 5) -> Tensor:
    out: Tensor = model(images(count))
    return out


@pytest.mark.parametrize("method", CHOOSERS)
def test_keeping_all_changes_no_bit(model: nn.Module, method: str) -> None:
    before = logits(model)
    with pruned(model, 10, 26, 0.5, method=method) as record:
        assert torch.equal(logits(model), before)
    assert record.tokens_before == 37
    assert record.kept is None or record.kept.shape[1] == 37


@pytest.mark.parametrize("method", CHOOSERS)
def test_pruned_blocks_run_on_fewer_tokens(model: nn.Module, method: str) -> None:
    seen: list[int] = []
    host = host_of(model)
    handles = [
        host.parts(block)[0].register_forward_hook(lambda _, args, out: seen.append(out.shape[1]))
        for block in host.blocks
    ]
    with pruned(model, 3, 5, 0.5, start_layer=2, method=method):
        logits(model)
    for handle in handles:
        handle.remove()
    assert seen == [37, 37, 37, 9, 9]  # the third block's norm runs once to choose, once on what is kept


def test_model_is_restored(model: nn.Module) -> None:
    before, state = logits(model), {key: value.clone() for key, value in model.state_dict().items()}
    with pruned(model, 2, 3, 0.5), pruned(model, 1, 1, 0.5, start_layer=3):
        assert not torch.equal(logits(model), before)
    with pytest.raises(ZeroDivisionError), pruned(model, 2, 3, 0.5):
        raise ZeroDivisionError
    with pytest.raises((RuntimeError, AssertionError)), pruned(model, 2, 3, 0.5):
        model(torch.zeros(1, 3, 7, 7))
    assert torch.equal(logits(model), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_nested_contexts_prune_what_is_left(model: nn.Module) -> None:
    with pruned(model, 4, 8, 0.5, start_layer=1) as outer, pruned(model, 2, 3, 0.5, start_layer=3) as inner:
        logits(model)
        assert (outer.kept.shape[1], inner.tokens_before, inner.kept.shape[1]) == (13, 13, 6)
    with pytest.raises(InputError, match="but the model has 13"), pruned(model, 4, 8, 0.5):
        with pruned(model, 10, 20, 0.5, start_layer=2):
            logits(model)


def test_host_chooses_what_the_pure_function_chooses(model: nn.Module) -> None:
    host, captured = host_of(model), {}
    block = host.blocks[2]
    handle = block.register_forward_pre_hook(lambda _, args: captured.update(tokens=host.tokens_in(args[0])))
    with torch.no_grad():
        logits(model)
        handle.remove()
        source = host.attention_input(block, captured["tokens"], Positions())
        everyone = torch.arange(37).expand(5, -1)
        expected = select_tokens(source.queries(everyone), source.keys(), source.tokens, 3, 7, 0.3)
    with pruned(model, 3, 7, 0.3, start_layer=2) as record:
        logits(model)
    assert record.kept is not None
    assert torch.equal(record.kept, expected.sort(dim=1).values)
    assert record.kept[:, 0].eq(0).all()


def test_only_anchor_rows_are_computed() -> None:
    torch.manual_seed(0)
    model = own().eval()
    rows: list[int] = []
    host = host_of(model)

    class Spy(type(host)):  # type: ignore[misc]
        def attention_input(self, block: nn.Module, tokens: Tensor, positions: Positions) -> Any:
            source = super().attention_input(block, tokens, positions)
            queries = source.queries
            object.__setattr__(source, "queries", lambda index: rows.append(index.shape[1]) or queries(index))
            return source

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("routing.models.vit.token_pruning.host_of", lambda model: Spy(model))
        with pruned(model, 3, 7, 0.5):
            logits(model)
        assert rows == [1, 3]


@pytest.mark.parametrize("name", ["own", "timm", "open_clip"])
def test_masks_travel_along(name: str) -> None:
    """Hidden tokens change nothing: the answer is that of the input without them."""
    torch.manual_seed(0)
    model = HOSTS[name]().eval()
    host = host_of(model)
    tokens = torch.randn(2, 37, 16)
    visible = torch.ones(37, dtype=torch.bool)
    visible[20:] = False
    added = torch.zeros(37, 37).masked_fill(~visible, -torch.inf)
    mask = added if name == "open_clip" else visible.expand(2, 1, 1, 37)

    def run(values: Tensor, mask: Tensor | None) -> Tensor:
        for block in host.blocks:
            values = block(values, mask) if name == "own" else block(values, attn_mask=mask)
        return values[:, 0]

    with torch.no_grad():
        with pruned(model, 4, 8, 0.5) as record:
            masked = run(tokens, mask)
            assert record.kept is not None
            assert int(record.kept.max()) < 20
        with pruned(model, 4, 8, 0.5) as alone:
            plain = run(tokens[:, :20], None)
    assert alone.kept is not None
    assert torch.equal(record.kept, alone.kept)
    assert torch.allclose(masked, plain, atol=1e-5)


def test_merging_takes_no_mask() -> None:
    model = HOSTS["open_clip"]().eval()
    host = host_of(model)
    tokens, mask = torch.randn(1, 37, 16), torch.zeros(37, 37)
    with pytest.raises(InputError, match="'merge' cannot take an attention mask"), pruned(model, 2, 3, method="merge"):
        host.blocks[1](tokens, attn_mask=mask)


def test_older_open_clip_layout_gives_the_same() -> None:
    transformer = pytest.importorskip("open_clip.transformer")
    torch.manual_seed(0)
    model = from_open_clip().eval()
    old = from_open_clip().eval()
    old.transformer = transformer.Transformer(16, 4, 2, 2.0, batch_first=False).eval()
    old.load_state_dict(model.state_dict())
    with pruned(model, 3, 5, 0.5), pruned(old, 3, 5, 0.5):
        assert torch.allclose(logits(model), logits(old), atol=1e-6)


@pytest.mark.parametrize("start_layer", [0, 4, -1])
def test_start_layer_out_of_range(model: nn.Module, start_layer: int) -> None:
    with pytest.raises(InputError, match=r"start_layer -?\d: .*valid: 1 to 3"), pruned(model, 2, 3, 0.5, start_layer):
        pass


def test_models_without_an_adapter() -> None:
    with pytest.raises(InputError, match=r"SwinTransformer: .*need a plain vision transformer"):
        host_of(torchvision.models.swin_t())
    with pytest.raises(InputError, match="blocks of another kind: ParallelScalingBlock"):
        host_of(from_timm(block_fn=sys.modules["timm.models.vision_transformer"].ParallelScalingBlock))
    with pytest.raises(InputError, match="Linear"), pruned(nn.Linear(2, 2), 1, 1):
        pass


def test_too_many_tokens_names_the_real_count(model: nn.Module) -> None:
    with pytest.raises(InputError, match="but the model has 37"), pruned(model, 10, 50, 0.5):
        pass


def test_unknown_method() -> None:
    with (
        pytest.raises(InputError, match="did you mean 'importance_diversity'"),
        pruned(own(), 1, 1, method="importance"),
    ):
        pass


def test_random_control() -> None:
    """Fixed in evaluation, different per image, right on average."""
    torch.manual_seed(0)
    model = own().eval()
    counts = torch.zeros(37)
    with torch.no_grad(), pruned(model, 4, 5, method="random") as record:
        model(torch.randn(400, 3, 24, 24))
        first = record.kept
        assert first is not None
        model(torch.randn(400, 3, 24, 24))
        assert torch.equal(first, record.kept)
    counts = torch.bincount(first.flatten(), minlength=37) / 400
    assert counts[0] == 1
    assert len({tuple(row) for row in first.tolist()}) > 390
    assert counts[1:].mean() == pytest.approx(9 / 36)
    assert counts[1:].min() > 0.15
    assert counts[1:].max() < 0.35


@pytest.mark.parametrize("method", CHOOSERS)
@pytest.mark.parametrize("direction", ["anchor_to_token", "token_to_anchor"])
def test_cost_of_a_pruned_model_is_its_trace(method: str, direction: Any) -> None:
    """Blocks on all tokens, the choice, blocks on kept tokens: together exactly what fvcore sees in one whole pass."""
    model = own().eval()
    host, t, kept, d = host_of(model), 37, 9, 16

    def block(tokens: int) -> int:
        return tokens * d * (4 * d + 2 * 32) + 2 * tokens**2 * d

    selection = Selection(3, 5, 0.5, direction)
    pruning = Pruning(selection, 2, method)
    choice = pruning.multiply_adds(host, t)
    expected = 36 * 4 * 4 * 3 * d + 2 * block(t) + choice + 2 * block(kept) + d * 5
    with pruned_by(model, pruning):
        assert count_module(model, (torch.zeros(1, 3, 24, 24),)) == expected
    if method == "cls_attention":
        assert choice == t * d * d + d * d + t * d
    if method == "importance_diversity":
        rows = 1 + (3 if direction == "anchor_to_token" else t)
        assert choice == t * d * d + rows * (d * d + t * d) + 3 * t * d


def test_attention_after_pruning_has_fewer_tokens(model: nn.Module) -> None:
    with pruned(model, 3, 5, 0.5, start_layer=2):
        maps = attention_maps(model, images())
    assert [maps[layer].shape for layer in range(4)] == [(5, 2, 37, 37)] * 2 + [(5, 2, 9, 9)] * 2


def test_settings_as_text() -> None:
    pruning = Pruning(Selection(10, 20, 0.25), 2)
    assert pruning.text() == "k_anchors=10,top_m=20,alpha=0.25,start_layer=2"
    assert Pruning(Selection(1, 1), 1).with_text(pruning.text()) == pruning
    assert pruning.with_text("alpha=1").selection == Selection(10, 20, 1.0)
    with pytest.raises(InputError, match="unknown key 'k_anchor'; did you mean 'k_anchors'"):
        pruning.with_text("k_anchor=3")
    with pytest.raises(InputError, match="top_m must be a number, not 'x'"):
        pruning.with_text("top_m=x")


@torch.no_grad()
def test_a_model_compiled_before_is_pruned_inside_and_not_after() -> None:
    torch.manual_seed(0)
    model, batch = from_torchvision().eval(), images()
    plain = model(batch)
    with pruned(model, 2, 3):
        expected = model(batch)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(batch), plain)
    for named in (model, compiled):
        with pruned(named, 2, 3) as record:
            torch.testing.assert_close(compiled(batch), expected)
        assert record.kept is not None
        torch.testing.assert_close(compiled(batch), plain)
    assert not torch.allclose(expected, plain)
