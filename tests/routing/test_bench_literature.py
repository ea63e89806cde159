"""Methods of the literature on timm's ViT: counted by hand, the model where they drop nothing, and as ours are."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from routing.bench import literature as bench
from routing.models.vit.token_predictor import Predictor
from routing.models.vit.token_pruning import reduced


def timm_vit(**sizes: int) -> Any:
    pytest.importorskip("timm")
    return bench._timm_vit(**sizes)


def test_rows_of_the_literature() -> None:
    pytest.importorskip("timm")
    rows = list(bench.compare([2, 1], ["fp32"], 1, embed_dim=32, num_heads=2))
    methods = [row["method"] for row in rows if row["batch_size"] == 2]
    assert methods[:2] == ["61 tokens from block 1 (ours)", "61 tokens from block 3 (ours)"]
    assert [name.partition(",")[0] for name in methods[2:]] == ["ToMe", "EViT", "DynamicViT"]
    assert [row["n"] for row in rows] == [1] * 5 + [2] * 5
    for row in rows:
        assert set(row) == set(bench.COLUMNS)
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

    def found(peer: bench.Peer) -> float:
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
    assert found(bench.tome) == expected

    expected, tokens = ends, 197
    for index in range(12):
        expected += attention(tokens)
        if index in (3, 6, 9):
            expected += tokens * d + (tokens - 1) * d  # the row of CLS, and the rest as one token
            tokens = 1 + -(-(tokens - 1) // 2) + 1
        expected += mlp(tokens)
    assert found(bench.evit) == expected

    predictors = nn.ModuleList(Predictor(d) for _ in range(3))
    expected, tokens = ends, 197
    for index in range(12):
        if index in (3, 6, 9):
            expected += (tokens - 1) * (d * d + d * d // 2 + d * d // 8 + d // 2)
            tokens = 1 + -(-patches // 2 ** (index // 3))
        expected += attention(tokens) + mlp(tokens)
    assert found(bench.dynamic_vit(predictors)) == expected


@torch.no_grad()
def test_peers_that_drop_nothing_are_the_model() -> None:
    model = timm_vit(embed_dim=32, num_heads=2)
    images = torch.randn(2, 3, 224, 224)
    predictors = nn.ModuleList(Predictor(32) for _ in bench.STAGES)
    ways: list[Tensor] = [
        bench.tome(model, images, merges=0),
        bench.dynamic_vit(predictors)(model, images, keep=1.0),  # type: ignore[call-arg]
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
    bench.evit(model, images)
    tokens, queries, keys = bench._attend(block, seen["before"])
    weights = ((queries[:, :, :1] * 4**-1) @ keys.transpose(2, 3)).softmax(-1).mean(1)[:, 0, 1:]  # E = 16
    order = weights.argsort(dim=1, descending=True)
    for image in range(2):
        rest = order[image, 98:]
        fused = weights[image, rest] @ tokens[image, 1 + rest]
        torch.testing.assert_close(seen["after"][image, -1], fused, rtol=1e-4, atol=1e-5)
        kept = tokens[image, 1 + order[image, :98]]
        torch.testing.assert_close(seen["after"][image, 1:-1], kept, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("peer", "method", "schedule"),
    [
        (bench.tome, "tome", 16),
        (bench.evit, "evit", dict.fromkeys(bench.STAGES, 0.5)),
        (None, "dynamicvit", {3: 98, 6: 49, 9: 25}),
    ],
)
def test_peers_and_registered_methods_are_two_ways_to_the_same_logits(
    peer: bench.Peer | None, method: str, schedule: Any
) -> None:
    model = timm_vit(embed_dim=32, num_heads=2)
    for parameter in model.parameters():  # larger than at the start of a training: attention that differs
        nn.init.normal_(parameter, std=0.2)
    model, images = model.double(), torch.randn(2, 3, 224, 224, dtype=torch.float64)
    predictors = nn.ModuleDict({str(block): Predictor(32) for block in bench.STAGES}).double()
    for parameter in predictors.parameters():
        nn.init.normal_(parameter, std=0.2)
    peer = peer or bench.dynamic_vit(nn.ModuleList(predictors.values()))
    plain, wanted = model(images), peer(model, images)
    with reduced(model, method, schedule, predictors=predictors):
        torch.testing.assert_close(model(images), wanted)
    assert not torch.allclose(plain, wanted, rtol=0.01)
