"""The token methods of the literature, literally: one image, one head, one token at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

METHODS = (
    "importance_diversity",
    "cls_attention",
    "mean_attention",
    "diversity",
    "random",
    "merge",
    "tome",
    "evit",
    "amod",
    "dynamicvit",
)
"""Of ``SELECTIONS``, all."""


def literal_attention(block: Any, tokens: Tensor, sizes: list[float] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens after attention (T, D), attention (H, T, T) and keys (H, T, E) of one image."""
    normed = block.norm_1(tokens)
    projected = normed @ block.attention.in_proj.weight.T + block.attention.in_proj.bias
    count, width = tokens.shape
    heads = block.attention.heads
    head_width = width // heads
    maps, keys, mixed = [], [], []
    for head in range(heads):
        q, k, v = (projected[:, part * width + head * head_width :][:, :head_width] for part in range(3))
        rows = []
        for i in range(count):
            weights = [
                math.exp(float(q[i] @ k[j]) / math.sqrt(head_width)) * (1.0 if sizes is None else sizes[j])
                for j in range(count)
            ]
            rows.append(torch.tensor(weights, dtype=tokens.dtype) / sum(weights))
        maps.append(torch.stack(rows))
        keys.append(k)
        mixed.append(maps[-1] @ v)
    out = torch.cat(mixed, dim=1) @ block.attention.out_proj.weight.T + block.attention.out_proj.bias
    return tokens + out, torch.stack(maps), torch.stack(keys)


def literal_mlp(block: Any, tokens: Tensor) -> Tensor:
    out: Tensor = tokens + block.mlp(block.norm_2(tokens))
    return out


def literal_tome(model: Any, tokens: Tensor, fewer: int) -> Tensor:
    """ToMe, section 3: split by turns, link each to its most similar, merge the ``fewer`` strongest links."""
    sizes = [1.0] * len(tokens)
    for block in model.blocks:
        tokens, _, keys = literal_attention(block, tokens, sizes)
        metric = keys.mean(dim=0)
        a, b = range(0, len(tokens), 2), range(1, len(tokens), 2)
        links = []
        for i in a:
            if i == 0:
                continue  # CLS
            similar = [float(torch.cosine_similarity(metric[i], metric[j], dim=0)) for j in b]
            best = max(range(len(similar)), key=lambda n: similar[n])
            links.append((similar[best], i, b[best]))
        merged = sorted(links, reverse=True)[:fewer]
        sums = {j: sizes[j] * tokens[j] for j in b}
        total = {j: sizes[j] for j in b}
        for _, i, j in merged:
            sums[j] = sums[j] + sizes[i] * tokens[i]
            total[j] += sizes[i]
        stay = [i for i in a if i not in {i for _, i, _ in merged}]
        tokens = torch.stack([tokens[i] for i in stay] + [sums[j] / total[j] for j in b])
        sizes = [sizes[i] for i in stay] + [total[j] for j in b]
        tokens = literal_mlp(block, tokens)
    return tokens


def literal_evit(model: Any, tokens: Tensor, rates: dict[int, float]) -> Tensor:
    """EViT, section 3: the patches CLS attends to most stay, the others become one, weighted by that attention."""
    for index, block in enumerate(model.blocks):
        tokens, maps, _ = literal_attention(block, tokens)
        if index in rates:
            looked_at = [float(maps[:, 0, j].mean()) for j in range(1, len(tokens))]
            order = sorted(range(len(looked_at)), key=lambda n: -looked_at[n])
            count = math.ceil(rates[index] * len(looked_at))
            kept, lost = sorted(order[:count]), order[count:]
            fused = sum((looked_at[n] * tokens[n + 1] for n in lost), torch.zeros_like(tokens[0]))
            tokens = torch.stack([tokens[0], *(tokens[n + 1] for n in kept), fused])
        tokens = literal_mlp(block, tokens)
    return tokens


def literal_amod(model: Any, tokens: Tensor, rates: dict[int, float]) -> Tensor:
    """A-MoD: a routed block takes the tokens that the block before attended to most; the others wait."""
    received: list[float] = []
    for index, block in enumerate(model.blocks):
        taken = list(range(len(tokens)))
        if index in rates:
            order = sorted(range(1, len(tokens)), key=lambda n: -received[n])
            taken = [0, *sorted(order[: math.ceil(rates[index] * (len(tokens) - 1))])]
        inside, maps, _ = literal_attention(block, tokens[taken])
        received = [float(maps[:, :, j].mean()) for j in range(len(taken))]
        tokens = tokens.clone()
        tokens[taken] = literal_mlp(block, inside)
    return tokens


def literal_scores(predictor: Any, patches: Tensor, left: list[int]) -> list[float]:
    """DynamicViT, section 3.2: log odds of being kept (N), from a patch's own half and the mean half of those left."""
    norm, first, _ = predictor.features
    normed = torch.nn.functional.layer_norm(patches, patches.shape[1:], norm.weight, norm.bias, norm.eps)
    features = [torch.nn.functional.gelu(first.weight @ row + first.bias) for row in normed]
    half = patches.shape[1] // 2
    mean = sum((features[n][half:] for n in left), torch.zeros_like(features[0][half:])) / len(left)
    odds = []
    for row in features:
        value = torch.cat([row[:half], mean])
        for layer in predictor.decision:
            value = layer.weight @ value + layer.bias if hasattr(layer, "weight") else torch.nn.functional.gelu(value)
        odds.append(float(value[0] - value[1]))
    return odds


def literal_dynamicvit(
    model: Any, tokens: Tensor, rates: dict[int, float], predictors: Any
) -> tuple[Tensor, list[int]]:
    """DynamicViT in inference: before a block the patches with the best scores stay; also returns which."""
    kept = list(range(len(tokens)))
    for index, block in enumerate(model.blocks):
        if index in rates:
            scores = literal_scores(predictors[str(index)], tokens[1:], list(range(len(tokens) - 1)))
            order = sorted(range(len(scores)), key=lambda n: -scores[n])
            stay = [0, *sorted(n + 1 for n in order[: math.ceil(rates[index] * len(scores))])]
            tokens, kept = tokens[stay], [kept[n] for n in stay]
        tokens = literal_mlp(block, literal_attention(block, tokens)[0])
    return tokens, kept


LITERAL: dict[str, tuple[Any, Callable[[Any, Tensor], Tensor]]] = {
    "tome": (4, lambda model, tokens: literal_tome(model, tokens, 4)),
    "evit": ({0: 0.8, 2: 0.5}, lambda model, tokens: literal_evit(model, tokens, {0: 0.8, 2: 0.5})),
    "amod": ({1: 0.5, 3: 0.25}, lambda model, tokens: literal_amod(model, tokens, {1: 0.5, 3: 0.25})),
}
"""Method -> schedule, and what leaves the blocks (T, D) of the tokens of one image."""
