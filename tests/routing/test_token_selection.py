"""Selection of tokens: the four formulas against a literal loop, ties, masks, limits; merging by hand."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from routing.errors import InputError
from routing.models.vit.token_merging import merge_tokens, merged_pairs
from routing.models.vit.token_pruning import select_tokens

B, H, T, E, D = 3, 2, 12, 4, 8


def literal_selection(
    queries: Tensor,
    keys: Tensor,
    tokens: Tensor,
    k: int,
    m: int,
    alpha: float,
    direction: str,
    normalize: str,
) -> list[int]:
    """The four formulas for one image, written as loops over numbers; nothing shared with the code under test."""
    heads, count, width = queries.shape

    @functools.cache
    def row(query: int) -> list[float]:
        mean = [0.0] * count
        for h in range(heads):
            logits = [sum(float(queries[h, query, e] * keys[h, t, e]) for e in range(width)) for t in range(count)]
            exps = [math.exp(x / math.sqrt(width)) for x in logits]
            mean = [value + e / sum(exps) / heads for value, e in zip(mean, exps, strict=True)]
        return mean

    def attention(query: int, key: int) -> float:
        return row(query)[key]

    def cosine(a: int, b: int) -> float:
        dot = sum(float(x * y) for x, y in zip(tokens[a], tokens[b], strict=True))
        norms = [math.sqrt(sum(float(x * x) for x in tokens[i])) for i in (a, b)]
        return dot / (norms[0] * norms[1])

    def ranked(values: dict[int, float]) -> list[int]:
        return sorted(values, key=lambda i: (-round(values[i], 6), i))

    anchors = ranked({i: attention(0, i) for i in range(1, count)})[:k]
    rest = [i for i in range(1, count) if i not in anchors]
    if direction == "anchor_to_token":
        importance = {i: sum(attention(j, i) for j in anchors) / k for i in rest}
    else:
        importance = {i: sum(attention(i, j) for j in anchors) / k for i in rest}
    diversity = {i: 1 - max(cosine(i, j) for j in anchors) for i in rest}
    if normalize == "minmax":
        importance, diversity = scaled(importance), scaled(diversity)
    score = {i: alpha * importance[i] + (1 - alpha) * diversity[i] for i in rest}
    return [0, *anchors, *ranked(score)[:m]]


def scaled(values: dict[int, float]) -> dict[int, float]:
    low, high = min(values.values()), max(values.values())
    return {i: (value - low) / (high - low) if high - low > 1e-7 else 0.0 for i, value in values.items()}


def random_input(seed: int, ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    queries, keys = torch.randn(2, B, H, T, E, generator=generator).double()
    tokens = torch.randn(B, T, D, generator=generator).double()
    if ties:  # every token has a twin somewhere else: equal attention, equal cosine
        twin = torch.tensor([0, *(torch.randperm(T - 1, generator=generator) % 4 + 1).tolist()])
        queries, keys, tokens = queries[:, :, twin], keys[:, :, twin], tokens[:, twin]
    return queries, keys, tokens


LIMITS = [(1, 1), (3, 4), (1, T - 2), (T - 2, 1), (5, T - 6)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("normalize", ["minmax", "none"])
@pytest.mark.parametrize("direction", ["anchor_to_token", "token_to_anchor"])
@pytest.mark.parametrize(("k", "m"), LIMITS)
def test_selection_is_the_literal_formula(k: int, m: int, direction: Any, normalize: Any, ties: bool) -> None:
    for seed, alpha in enumerate((0.0, 0.3, 1.0)):
        queries, keys, tokens = random_input(seed, ties)
        found = select_tokens(queries, keys, tokens, k, m, alpha, direction, normalize)
        for b in range(B):
            expected = literal_selection(queries[b], keys[b], tokens[b], k, m, alpha, direction, normalize)
            assert found[b].tolist() == expected


def test_ties_go_to_the_lower_index() -> None:
    queries = keys = torch.ones(1, H, T, E)
    tokens = torch.ones(1, T, D)
    assert select_tokens(queries, keys, tokens, 3, 4, 0.5).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_selection_by_hand() -> None:
    # one head, width 1: CLS looks at key 3 most, then 1, 2, 4; tokens 2 and 3 point the same way
    keys = torch.tensor([0.0, 2.0, 1.0, 3.0, 0.5]).view(1, 1, 5, 1)
    queries = torch.ones(1, 1, 5, 1)
    tokens = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])[None]
    # anchor: 3. importance follows the keys: 1, 2, 4. diversity from token 3: 1 -> 1, 2 -> 0, 4 -> 2
    assert select_tokens(queries, keys, tokens, 1, 3, 1.0).tolist() == [[0, 3, 1, 2, 4]]
    assert select_tokens(queries, keys, tokens, 1, 3, 0.0).tolist() == [[0, 3, 4, 1, 2]]


def test_images_are_decided_one_by_one() -> None:
    queries, keys, tokens = random_input(0, ties=False)
    whole = select_tokens(queries, keys, tokens, 2, 3, 0.5)
    alone = [select_tokens(queries[b : b + 1], keys[b : b + 1], tokens[b : b + 1], 2, 3, 0.5) for b in range(B)]
    assert torch.equal(whole, torch.cat(alone))
    assert len({tuple(row) for row in whole.tolist()}) > 1


def test_padding_is_kept_last() -> None:
    queries, keys, tokens = random_input(1, ties=False)
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[0, 5:] = False
    kept = select_tokens(queries, keys, tokens, 2, 4, 0.5, mask=mask)
    assert set(kept[0, :5].tolist()) == {0, 1, 2, 3, 4}
    plain = select_tokens(queries[:1, :, :5], keys[:1, :, :5], tokens[:1, :5], 2, 2, 0.5)
    assert kept[0, :5].tolist() == plain[0].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_anchors": 0}, r"pruning.k_anchors 0: must be at least 1"),
        ({"top_m": 0}, r"pruning.top_m 0: must be at least 1"),
        ({"alpha": 1.5}, r"pruning.alpha 1.5: must be in \[0, 1\]"),
        ({"alpha": math.nan}, r"pruning.alpha nan"),
        (
            {"k_anchors": 8, "top_m": 4},
            r"1 \+ 8 \+ 4 = 13 tokens, but the model has 12 .*k_anchors \+ top_m <= 11",
        ),
        ({"direction": "anchor"}, r"pruning.direction 'anchor'.*valid: anchor_to_token, token_to_anchor"),
        ({"normalize": "max"}, r"pruning.normalize 'max'.*did you mean 'minmax'"),
    ],
)
def test_bad_settings(change: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"k_anchors": 2, "top_m": 3, "alpha": 0.5, **change}
    with pytest.raises(InputError, match=message):
        select_tokens(*random_input(0, ties=False), **settings)


def test_attention_that_is_no_number() -> None:
    queries, keys, tokens = random_input(0, ties=False)
    keys[0, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="attention of CLS is not a finite number"):
        select_tokens(queries, keys, tokens, 2, 3, 0.5)


def test_merging_by_hand() -> None:
    # even tokens: 0 (CLS), 2, 4; odd: 1, 3. Token 4 equals 1, so that pair is merged first; then its sizes count
    tokens = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [3.0, 0.0]])[None]
    assert merge_tokens(tokens, tokens, 4).tolist() == [[[9.0, 9.0], [0.0, 1.0], [2.0, 0.0], [-1.0, 1.0]]]
    assert torch.equal(merge_tokens(tokens, tokens, 5), tokens)


def test_merging_keeps_the_mean_and_counts_pairs() -> None:
    tokens = torch.randn(2, 37, 8, dtype=torch.float64)
    # 37 -> 19 (18 merged) -> 10 (9) -> 8 (2): pairs 19 * 18 + 10 * 9 + 5 * 5
    assert merge_tokens(tokens, tokens, 8).shape == (2, 8, 8)
    assert merged_pairs(37, 8) == 19 * 18 + 10 * 9 + 5 * 5
    twins = tokens.repeat_interleave(2, dim=1)[:, 1:]  # CLS alone, then every token twice
    merged = merge_tokens(twins, twins, 37)
    assert torch.allclose(merged.sort(dim=1).values, tokens.sort(dim=1).values)
