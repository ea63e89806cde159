"""``routing bench literature``: token reduction of the literature on timm's ViT, side by side with ours.

Each method is written where and how its paper has it, for the plain ViT with a class token in inference, with PyTorch's
fused attention wherever the method allows it. They are controls of speed alone: what a method has to learn
(DynamicViT's predictor) has random weights, since which tokens go does not change the time.
ToMe, EViT and DynamicViT are ours written a second time, for one library alone; a test compares them.

Shapes: B images, T tokens (CLS is token 0), K kept, H heads, E width of a head, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.bench.pruning import COLUMNS as PRUNING_COLUMNS
from routing.bench.pruning import DTYPES, SELECTION, START_LAYER, UNPRUNED, Way, over_batches, plan, run_pruned
from routing.bench.tables import BenchTable
from routing.errors import MissingPackage
from routing.models.attention import attention_rows
from routing.models.vit.token_merging import merge_once, most_merges
from routing.models.vit.token_predictor import Predictor
from routing.models.vit.token_pruning import Pruning

STAGES = (3, 6, 9)
"""Blocks, from 0, at which EViT and DynamicViT drop tokens of a ViT of 12 blocks."""
ARCHITECTURE = "vit_small_patch16_224"
LATE_LAYER = 3  # pruned from here on, ours saves about as much as the others do at their settings
COLUMNS = {key: heading for key, heading in PRUNING_COLUMNS.items() if key != "tokens"}
Peer = Callable[[Any, Tensor], Tensor]
"""timm's ViT and images -> logits."""


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the table of ours and the literature's methods, in fp32 and, where there are instructions for it, bf16."""
    rows = [
        row for device, precisions, sizes, rounds in plan(quick) for row in compare(sizes, precisions, rounds, device)
    ]
    return [BenchTable("token reduction of the literature, on timm's ViT", COLUMNS, rows)]


def compare(
    batch_sizes: Sequence[int], precisions: Sequence[str], rounds: int, device: str = "cpu", **sizes: Any
) -> Iterator[dict[str, Any]]:
    """Yield one row (see ``COLUMNS``) per precision, batch size and method, on timm's ViT-S/16.

    Multiply-adds are PyTorch's own count, which sees what every method really runs, by the same rule for all.

    Args:
        sizes: other arguments of timm's model; 12 blocks are needed.

    Raises:
        MissingPackage: timm is not installed.
    """
    model = _timm_vit(**sizes)
    predictors = nn.ModuleList(Predictor(model.embed_dim) for _ in STAGES).eval()
    runs: dict[str, Peer] = {UNPRUNED: lambda model, images: model(images)}
    for layer in (START_LAYER, LATE_LAYER):
        runs[f"{SELECTION.num_kept} tokens from block {layer} (ours)"] = partial(
            run_pruned, pruning=Pruning(SELECTION, layer)
        )
    runs |= {"ToMe, 16 a block": tome, "EViT, keep .5": evit, "DynamicViT, keep .5": dynamic_vit(predictors)}
    flops = {name: _multiply_adds(partial(run, model)) for name, run in runs.items()}
    for precision in precisions:
        for module in (model, predictors):
            module.to(device, DTYPES[precision])
        ways = {name: Way(partial(run, model), flops[name]) for name, run in runs.items()}
        fixed = {"device": device, "architecture": f"timm {ARCHITECTURE}", "precision": precision}
        for row in over_batches(ways, batch_sizes, rounds, next(model.parameters())):
            yield {**fixed, **row}


def _timm_vit(**sizes: Any) -> Any:
    try:
        import timm
    except ImportError:
        raise MissingPackage("this benchmark needs timm: pip install 'routing-sweeps[timm]'") from None
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, **sizes).eval()


@torch.no_grad()
def _multiply_adds(run: Callable[[Tensor], object]) -> float:
    """Return PyTorch's count for one image; the unfused kernel shows the products of attention on every version."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run(torch.zeros(1, 3, 224, 224))
    return counter.get_total_flops() / 2


def tome(model: Any, images: Tensor, merges: int = 16) -> Tensor:
    """ToMe (arXiv:2210.09461): in every block ``merges`` pairs, by their keys; attention is weighted by token size."""
    tokens_BTD = _embedded(model, images)
    sizes_BT1 = torch.ones_like(tokens_BTD[..., :1])
    for block in model.blocks:
        tokens_BTD, _, keys_BHTE = _attend(block, tokens_BTD, sizes_BT1.log().transpose(1, 2).unsqueeze(1))
        count = min(merges, most_merges(tokens_BTD.shape[1]))
        [tokens_BTD], sizes_BT1 = merge_once([tokens_BTD], sizes_BT1, keys_BHTE.mean(dim=1), count)
        tokens_BTD = _feed(block, tokens_BTD)
    return _classified(model, tokens_BTD)


def evit(model: Any, images: Tensor, keep: float = 0.5) -> Tensor:
    """EViT (arXiv:2202.07800): keep what CLS attends to, between attention and MLP; the rest becomes one token."""
    tokens_BTD = _embedded(model, images)
    for index, block in enumerate(model.blocks):
        tokens_BTD, queries_BHTE, keys_BHTE = _attend(block, tokens_BTD)
        if index in STAGES:
            attention_BT = attention_rows(queries_BHTE[:, :, :1], keys_BHTE)[:, :, 0, 1:].mean(dim=1)
            kept_BK = attention_BT.topk(math.ceil(keep * attention_BT.shape[1])).indices
            rest_BT = attention_BT.scatter(1, kept_BK, 0).to(tokens_BTD.dtype)
            fused_B1D = rest_BT.unsqueeze(1) @ tokens_BTD[:, 1:]
            tokens_BTD = torch.cat([_with_cls(tokens_BTD, kept_BK), fused_B1D], dim=1)
        tokens_BTD = _feed(block, tokens_BTD)
    return _classified(model, tokens_BTD)


def dynamic_vit(predictors: nn.ModuleList) -> Peer:
    """DynamicViT (arXiv:2106.02034): before three blocks a small network scores the tokens; the best half goes on."""

    def forward(model: Any, images: Tensor, keep: float = 0.5) -> Tensor:
        tokens_BTD = _embedded(model, images)
        patches = tokens_BTD.shape[1] - 1
        for index, block in enumerate(model.blocks):
            if index in STAGES:
                stage = STAGES.index(index)
                score_BT = predictors[stage].scores(tokens_BTD[:, 1:])
                kept_BK = score_BT.topk(math.ceil(patches * keep ** (stage + 1))).indices
                tokens_BTD = _with_cls(tokens_BTD, kept_BK)
            tokens_BTD = _feed(block, _attend(block, tokens_BTD)[0])
        return _classified(model, tokens_BTD)

    return forward


def _embedded(model: Any, images: Tensor) -> Tensor:
    tokens: Tensor = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    return tokens


def _attend(block: Any, tokens_BTD: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tokens after attention, and its queries and keys (B, H, T, E)."""
    attention = block.attn
    projected = attention.qkv(block.norm1(tokens_BTD)).unflatten(2, (3, attention.num_heads, -1))
    queries, keys, values = projected.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    return tokens_BTD + attention.proj(mixed.transpose(1, 2).flatten(2)), queries, keys


def _feed(block: Any, tokens_BTD: Tensor) -> Tensor:
    fed: Tensor = tokens_BTD + block.mlp(block.norm2(tokens_BTD))
    return fed


def _classified(model: Any, tokens_BTD: Tensor) -> Tensor:
    logits: Tensor = model.forward_head(model.norm(tokens_BTD))
    return logits


def _with_cls(tokens_BTD: Tensor, kept_BK: Tensor) -> Tensor:
    """Return CLS and the patches ``kept_BK``, which count from 0 after CLS."""
    index = F.pad(kept_BK + 1, (1, 0))
    return tokens_BTD.gather(1, index.unsqueeze(2).expand(-1, -1, tokens_BTD.shape[2]))
