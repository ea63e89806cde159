"""The pruning benchmark: one row per setting, ratios that follow from the times."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from routing.bench import pruning as bench
from routing.bench import pruning_peers as peers


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_of_the_benchmark(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setitem(bench.ARCHITECTURES, "tiny", (16, 2))
    methods = ("importance_diversity", "merge")
    rows = list(bench.bench_pruning(["tiny"], [2, 1], [precision], methods, rounds=2))
    assert [(row["batch_size"], row["method"], row["n"]) for row in rows] == [
        (2, "importance_diversity", 2),
        (2, "merge", 2),
        (1, "importance_diversity", 4),
        (1, "merge", 4),
    ]
    for row in rows:
        assert set(row) == set(bench.COLUMNS)
        assert row["tokens"] == "61 of 197"
        assert row["theoretical"] > 2
        assert row["ratio"] == pytest.approx(row["realised"] / row["theoretical"])


def test_milliseconds_are_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.ARCHITECTURES, "tiny", (16, 2))
    times = {"unpruned": [1.0, 4.0, 6.0], "merge": [0.5, 2.0, 9.0]}
    monkeypatch.setattr(bench, "interleaved", lambda *_: times)
    [row] = bench.bench_pruning(["tiny"], [2], ["fp32"], ("merge",))
    assert (row["ms_per_image"], row["ms_per_image_unpruned"]) == (1000, 2000)


def test_theoretical_speed_up_by_hand() -> None:
    """ViT-S/16, 61 of 197 tokens from the second block: two thirds of the compute are gone, the choice included."""
    t, kept, d, m = 197, 61, 384, 1536

    def block(tokens: int) -> int:
        return tokens * d * (4 * d + 2 * m) + 2 * tokens**2 * d

    ends = 196 * 768 * d + d * 1000
    choice = t * d * d + 11 * (d * d + t * d) + 10 * t * d
    model = bench._model("vit_s_16")
    cost = model.cost_at(bench.Pruning(bench.SELECTION, bench.START_LAYER))
    assert cost == ends + block(t) + choice + 11 * block(kept)
    assert model.dense_flops / cost == pytest.approx(2.725, abs=5e-4)


def timm_vit(**sizes: int) -> Any:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model("vit_small_patch16_224", **sizes).eval()


def test_rows_of_the_literature() -> None:
    pytest.importorskip("timm")
    rows = list(bench.bench_literature([2, 1], ["fp32"], 1, embed_dim=32, num_heads=2))
    methods = [row["method"] for row in rows if row["batch_size"] == 2]
    assert methods[:2] == ["61 tokens from block 1 (ours)", "61 tokens from block 3 (ours)"]
    assert [name.partition(",")[0] for name in methods[2:]] == ["ToMe", "EViT", "DynamicViT"]
    assert [row["n"] for row in rows] == [1] * 5 + [2] * 5
    for row in rows:
        assert set(row) == set(bench.PEER_COLUMNS)
        assert row["theoretical"] > 1.5
        assert row["ratio"] == pytest.approx(row["realised"] / row["theoretical"])


def test_multiply_adds_of_the_literature_by_hand() -> None:
    """ViT-S/16 is 4.599 G; of each method every block at the number of tokens it runs on, and what choosing costs."""
    d, m, patches = 384, 1536, 196
    ends = patches * 768 * d + d * 1000
    model = timm_vit()

    def attention(tokens: int) -> int:
        return tokens * d * 4 * d + 2 * tokens**2 * d

    def mlp(tokens: int) -> int:
        return tokens * d * 2 * m

    def found(peer: peers.Peer) -> float:
        return bench._multiply_adds(partial(peer, model))

    whole = ends + 12 * (attention(197) + mlp(197))
    assert found(lambda model, images: model(images)) == whole
    assert whole == pytest.approx(4.599e9, rel=1e-3)

    expected, tokens = ends, 197
    for _ in range(12):
        even, odd = (tokens + 1) // 2, tokens // 2
        left = max(tokens - 16, tokens - (tokens - 1) // 2)
        expected += attention(tokens) + even * odd * 64 + mlp(left)
        tokens = left
    assert found(peers.tome) == expected

    expected, tokens = ends, 197
    for index in range(12):
        expected += attention(tokens)
        if index in (3, 6, 9):
            expected += tokens * d + (tokens - 1) * d  # the row of CLS, and the rest as one token
            tokens = 1 + -(-(tokens - 1) // 2) + 1
        expected += mlp(tokens)
    assert found(peers.evit) == expected

    predictors = nn.ModuleList(peers.Predictor(d) for _ in range(3))
    expected, tokens = ends, 197
    for index in range(12):
        if index in (3, 6, 9):
            expected += (tokens - 1) * (d * d + d * d // 2 + d * d // 8 + d // 2)
            tokens = 1 + -(-patches // 2 ** (index // 3))
        expected += attention(tokens) + mlp(tokens)
    assert found(peers.dynamic_vit(predictors)) == expected


@torch.no_grad()
def test_peers_that_drop_nothing_are_the_model() -> None:
    model = timm_vit(embed_dim=32, num_heads=2)
    images = torch.randn(2, 3, 224, 224)
    predictors = nn.ModuleList(peers.Predictor(32) for _ in peers.STAGES)
    ways: list[Tensor] = [
        peers.tome(model, images, merges=0),
        peers.dynamic_vit(predictors)(model, images, keep=1.0),  # type: ignore[call-arg]
    ]
    for logits in ways:
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_evit_fuses_what_cls_does_not_attend_to() -> None:
    """By hand on the first stage: the fused token is the attention-weighted sum of the rest."""
    model = timm_vit(embed_dim=32, num_heads=2)
    images, seen = torch.randn(2, 3, 224, 224), {}
    block = model.blocks[3]
    block.norm2.register_forward_hook(lambda _, args, out: seen.update(after=args[0]))
    block.norm1.register_forward_hook(lambda _, args, out: seen.update(before=args[0]))
    peers.evit(model, images)
    tokens, queries, keys = peers._attend(block, seen["before"])
    weights = ((queries[:, :, :1] * 4**-1) @ keys.transpose(2, 3)).softmax(-1).mean(1)[:, 0, 1:]  # E = 16
    order = weights.argsort(dim=1, descending=True)
    for image in range(2):
        rest = order[image, 98:]
        fused = weights[image, rest] @ tokens[image, 1 + rest]
        torch.testing.assert_close(seen["after"][image, -1], fused, rtol=1e-4, atol=1e-5)
        kept = tokens[image, 1 + order[image, :98]]
        torch.testing.assert_close(seen["after"][image, 1:-1], kept, rtol=1e-4, atol=1e-5)
