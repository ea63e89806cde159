"""Which tokens of an image go on? Index maths only: no module, no model, no state.

The method is training-free and decides per image, in four steps:

    1. anchors     the k tokens with the highest attention of CLS: softmax(q_cls K^T / sqrt(E)), heads averaged
    2. importance  I_i = mean attention between token i and the anchors, over anchors and heads
    3. diversity   D_i = 1 - max_j cosine(x_i, x_j) over the anchors j
    4. score       S_i = alpha * I_i + (1 - alpha) * D_i; kept are CLS, the k anchors and the m best other tokens

``random``, ``cls_attention`` and ``diversity`` are controls of the same interface; merging is in ``token_merging``.
Register and distillation tokens stay as CLS does. A model without CLS has the mean attention that a token receives
in place of the attention of CLS.

Shapes: B images, H heads, T tokens (P of them before the patches, CLS first), R query rows, E width of a head,
D width of a token, K kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from routing.errors import InputError, choices, nearest
from routing.models.attention import attention_rows, rows_at, wide
from routing.models.vit.positions import Prefix

Direction = Literal["anchor_to_token", "token_to_anchor"]
Normalize = Literal["minmax", "none"]

RANDOM_SEED = 20_240_918


@dataclass(frozen=True)
class AttentionInput:
    """Input of a selection. Projections are functions, so that a method computes only those that it uses.

    tokens: (B, T, D), what the block's projections see.
    keys: returns (B, H, T, E).
    queries: returns the queries (B, H, R, E) of the tokens at indices (B, R).
    bias: added to the attention logits, broadcastable to (B, H, T, T); -inf hides a key. None hides nothing.
    is_trained: whether the tokens have a gradient, so that a choice is a part of a training step.
    scores: returns what a learned predictor of this block says of the patches (B, T - P); None: there is none.
    """

    tokens: Tensor
    keys: Callable[[], Tensor]
    queries: Callable[[Tensor], Tensor]
    bias: Tensor | None = None
    is_trained: bool = False
    scores: Callable[[], Tensor] | None = None

    def hidden_BT(self) -> Tensor | None:
        """Return where CLS cannot look in any head, or None."""
        if self.bias is None:
            return None
        return (self.bias[:, :, 0] == -torch.inf).all(dim=1).expand(self.tokens.shape[:2])


@dataclass(frozen=True)
class Selection:
    """How many tokens are kept and by what.

    k_anchors, top_m: tokens kept beside CLS. alpha: weight of importance against diversity, in [0, 1].
    direction: whose attention is importance; ``anchor_to_token`` costs k + 1 rows, ``token_to_anchor`` all T.
    normalize: ``minmax`` scales I and D to [0, 1] per image over the candidates (I is of order 1/T, D of order 1);
        ``none`` adds them as they are.
    prefix: the model's tokens before the patches, which stay.
    """

    k_anchors: int
    top_m: int
    alpha: float = 0.5
    direction: Direction = "anchor_to_token"
    normalize: Normalize = "minmax"
    prefix: Prefix = field(default_factory=Prefix, repr=False)

    @property
    def num_kept(self) -> int:
        """P + k + m, with a class token alone before the patches 1 + k + m."""
        return self.prefix.count + self.k_anchors + self.top_m

    def keeping(self, count: int) -> Selection:
        """Return the choice of ``count`` patches in all, 2 at least: the anchors as far as they go, then the rest."""
        anchors = min(self.k_anchors, count - 1)
        return replace(self, k_anchors=anchors, top_m=count - anchors)

    def check(self, num_tokens: int | None = None) -> None:
        """Raise ``InputError`` for values out of range, or more kept tokens than there are."""
        for name, value in (("k_anchors", self.k_anchors), ("top_m", self.top_m)):
            if value < 1:
                raise InputError(f"pruning.{name} {value}: must be at least 1")
        if not 0 <= self.alpha <= 1:
            raise InputError(f"pruning.alpha {self.alpha:g}: must be in [0, 1]")
        for name, word, valid in (
            ("direction", self.direction, ("anchor_to_token", "token_to_anchor")),
            ("normalize", self.normalize, ("minmax", "none")),
        ):
            if word not in valid:
                raise InputError(f"pruning.{name} '{word}'{nearest(word, valid)} (valid: {choices(valid)})")
        if num_tokens is not None and self.num_kept > num_tokens:
            raise InputError(
                f"pruning keeps {self.prefix.count} + {self.k_anchors} + {self.top_m} = {self.num_kept} tokens, but "
                f"the model has {num_tokens} (valid: k_anchors + top_m <= {num_tokens - self.prefix.count})"
            )


def select_tokens(
    queries: Tensor,
    keys: Tensor,
    tokens: Tensor,
    k_anchors: int,
    top_m: int,
    alpha: float,
    direction: Direction = "anchor_to_token",
    normalize: Normalize = "minmax",
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the indices (B, 1 + k + m) of the tokens to keep: CLS, the anchors by rank, then the rest by rank.

    Equal values are ranked by index, the lower first; the result depends on nothing but the arguments.

    Args:
        queries: (B, H, T, E); token 0 is CLS.
        keys: (B, H, T, E).
        tokens: (B, T, D), for the cosine.
        k_anchors: tokens that the CLS token looks at most.
        top_m: further tokens, chosen by importance and diversity.
        alpha: weight of importance, from 0 to 1; the rest is that of diversity.
        direction: whose attention to whom is a token's importance.
        normalize: how both are scaled before they are added.
        mask: (B, T), True for real tokens; padding gets no attention and is kept only when nothing else is left.

    Raises:
        InputError: k or m below 1, alpha outside [0, 1], 1 + k + m above T, or attention that is not a number.
    """
    selection = Selection(k_anchors, top_m, alpha, direction, normalize)
    bias = None
    if mask is not None:
        bias = torch.zeros_like(mask, dtype=torch.float32).masked_fill_(~mask, -torch.inf)[:, None, None]
    source = AttentionInput(tokens, lambda: keys, lambda rows: _rows(queries, rows), bias)
    return importance_diversity(source, selection)


def importance_diversity(source: AttentionInput, selection: Selection) -> Tensor:
    """The method itself: anchors, importance, diversity, score; indices (B, 1 + k + m)."""
    selection.check(source.tokens.shape[1])
    keys_BHTE = source.keys()
    attention_BT = _read(source, keys_BHTE, selection.prefix)
    anchors_BK = _anchors(attention_BT, selection.prefix, selection.k_anchors)
    candidates_BT = _candidates(source, selection.prefix, anchors_BK)
    hidden_BT = source.hidden_BT()
    compared_BT = candidates_BT if hidden_BT is None else candidates_BT & ~hidden_BT
    score_BT = torch.zeros(source.tokens.shape[:2], device=source.tokens.device)
    if selection.alpha > 0:
        importance_BT = _importance(source, keys_BHTE, anchors_BK, selection.direction)
        score_BT = score_BT + selection.alpha * _scaled(importance_BT, compared_BT, selection.normalize)
    if selection.alpha < 1:
        diversity_BT = _diversity(source.tokens, anchors_BK)
        score_BT = score_BT + (1 - selection.alpha) * _scaled(diversity_BT, compared_BT, selection.normalize)
    check_finite({reader_name(selection.prefix): attention_BT, "score of a token": score_BT}, source.is_trained)
    rest_BM = _best(source, score_BT, candidates_BT, selection.top_m)
    return _with_prefix(selection.prefix, anchors_BK, rest_BM)


def diversity(source: AttentionInput, selection: Selection) -> Tensor:
    """Control: the same anchors, the others by diversity alone."""
    selection.check(source.tokens.shape[1])
    attention_BT = _read(source, source.keys(), selection.prefix)
    anchors_BK = _anchors(attention_BT, selection.prefix, selection.k_anchors)
    candidates_BT = _candidates(source, selection.prefix, anchors_BK)
    diversity_BT = _diversity(source.tokens, anchors_BK)
    check_finite({reader_name(selection.prefix): attention_BT, "score of a token": diversity_BT}, source.is_trained)
    rest_BM = _best(source, diversity_BT, candidates_BT, selection.top_m)
    return _with_prefix(selection.prefix, anchors_BK, rest_BM)


def cls_attention(source: AttentionInput, selection: Selection) -> Tensor:
    """Control: the k + m tokens with the highest attention of CLS (EViT, arXiv:2202.07800, without its fusion)."""
    selection.check(source.tokens.shape[1])
    attention_BT = _read(source, source.keys(), selection.prefix)
    check_finite({reader_name(selection.prefix): attention_BT}, source.is_trained)
    best_BK = _anchors(attention_BT, selection.prefix, selection.k_anchors + selection.top_m)
    return _with_prefix(selection.prefix, best_BK[:, :0], best_BK)


def mean_attention(source: AttentionInput, selection: Selection) -> Tensor:
    """Control: the k + m tokens with the highest mean attention of all tokens, which takes every row of attention."""
    selection.check(source.tokens.shape[1])
    received_BT = _read(source, source.keys(), replace(selection.prefix, has_cls=False))
    check_finite({"attention that a token receives": received_BT}, source.is_trained)
    best_BK = _anchors(received_BT, selection.prefix, selection.k_anchors + selection.top_m)
    return _with_prefix(selection.prefix, best_BK[:, :0], best_BK)


def learned(source: AttentionInput, selection: Selection) -> Tensor:
    """The k + m patches with the highest scores of a predictor (DynamicViT, arXiv:2106.02034)."""
    selection.check(source.tokens.shape[1])
    assert source.scores is not None
    score_BT = F.pad(wide(source.scores()), (selection.prefix.count, 0))
    check_finite({"score of a token": score_BT}, source.is_trained)
    candidates_BT = _candidates(source, selection.prefix, torch.zeros_like(score_BT[:, :0], dtype=torch.long))
    best_BK = _best(source, score_BT, candidates_BT, selection.k_anchors + selection.top_m)
    return _with_prefix(selection.prefix, best_BK[:, :0], best_BK)


def random(source: AttentionInput, selection: Selection) -> Tensor:
    """Control: CLS and k + m random tokens, drawn per image; the same draw for every call of the same shape."""
    selection.check(source.tokens.shape[1])
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    noise_BT = torch.rand(source.tokens.shape[:2], generator=generator).to(source.tokens.device, non_blocking=True)
    candidates_BT = _candidates(source, selection.prefix, torch.zeros_like(noise_BT[:, :0], dtype=torch.long))
    best_BK = _best(source, noise_BT, candidates_BT, selection.k_anchors + selection.top_m)
    return _with_prefix(selection.prefix, best_BK[:, :0], best_BK)


def _rows(values_BHTE: Tensor, rows_BR: Tensor) -> Tensor:
    """Return the rows (B, H, R, E) at indices (B, R)."""
    batch, heads, _, width = values_BHTE.shape
    return values_BHTE.gather(2, rows_BR[:, None, :, None].expand(batch, heads, rows_BR.shape[1], width))


def _bias_rows(bias: Tensor | None, rows_BR: Tensor) -> Tensor | None:
    if bias is None or bias.shape[2] == 1:
        return bias
    bias = bias.expand(len(rows_BR), *bias.shape[1:])
    index = rows_BR[:, None, :, None].expand(-1, bias.shape[1], -1, bias.shape[3])
    return bias.gather(2, index)


def _attention_of(source: AttentionInput, keys_BHTE: Tensor, rows_BR: Tensor) -> Tensor:
    """Return the attention (B, R, T) of the tokens at ``rows_BR``, averaged over heads."""
    rows_BHRT = attention_rows(source.queries(rows_BR), keys_BHTE, _bias_rows(source.bias, rows_BR))
    return rows_BHRT.mean(dim=1)


def _read(source: AttentionInput, keys_BHTE: Tensor, prefix: Prefix) -> Tensor:
    """Return the attention (B, T) of CLS, without one the mean of all tokens."""
    batch, tokens = source.tokens.shape[:2]
    readers = torch.arange(1 if prefix.has_cls else tokens, device=source.tokens.device).expand(batch, -1)
    return _attention_of(source, keys_BHTE, readers).mean(dim=1)


def reader_name(prefix: Prefix) -> str:
    return "attention of CLS" if prefix.has_cls else "attention that a token receives"


def _anchors(attention_BT: Tensor, prefix: Prefix, count: int) -> Tensor:
    """Return the patches (B, count) with the highest attention, by rank."""
    first = prefix.count
    return attention_BT[:, first:].argsort(dim=1, descending=True, stable=True)[:, :count] + first


def _importance(source: AttentionInput, keys_BHTE: Tensor, anchors_BK: Tensor, direction: Direction) -> Tensor:
    """Return I (B, T): the mean attention that anchors pay to a token, or that a token pays to the anchors."""
    if direction == "anchor_to_token":
        return _attention_of(source, keys_BHTE, anchors_BK).mean(dim=1)
    batch, tokens = source.tokens.shape[:2]
    everyone_BT = torch.arange(tokens, device=source.tokens.device).expand(batch, tokens)
    attention_BTT = _attention_of(source, keys_BHTE, everyone_BT)
    return attention_BTT.gather(2, anchors_BK[:, None].expand(batch, tokens, -1)).mean(dim=2)


def _diversity(tokens_BTD: Tensor, anchors_BK: Tensor) -> Tensor:
    """Return D (B, T): 1 - the highest cosine to an anchor; a zero token has cosine 0 to everything."""
    norms_BT = wide(torch.linalg.vector_norm(tokens_BTD, dim=2)).clamp(min=1e-12)
    anchors_BKD = rows_at(tokens_BTD, anchors_BK)
    dots_BKT = wide(anchors_BKD @ tokens_BTD.transpose(1, 2))
    cosine_BKT = dots_BKT / norms_BT.gather(1, anchors_BK)[..., None]
    return 1 - cosine_BKT.amax(dim=1) / norms_BT


def _candidates(source: AttentionInput, prefix: Prefix, taken_BK: Tensor) -> Tensor:
    """Return (B, T), True for patches that are not taken."""
    free_BT = torch.ones(source.tokens.shape[:2], dtype=torch.bool, device=source.tokens.device)
    free_BT[:, : prefix.count] = False
    return free_BT.scatter(1, taken_BK, torch.zeros_like(taken_BK, dtype=torch.bool))


def _scaled(values_BT: Tensor, compared_BT: Tensor, normalize: Normalize) -> Tensor:
    """Scale to [0, 1] per image over the compared tokens; values that are all equal become 0."""
    if normalize == "none":
        return values_BT
    low_B1 = values_BT.masked_fill(~compared_BT, torch.inf).amin(dim=1, keepdim=True)
    high_B1 = values_BT.masked_fill(~compared_BT, -torch.inf).amax(dim=1, keepdim=True)
    spread_B1 = high_B1 - low_B1
    return torch.where(spread_B1 > 0, (values_BT - low_B1) / spread_B1, torch.zeros_like(values_BT))


def _best(source: AttentionInput, score_BT: Tensor, candidates_BT: Tensor, count: int) -> Tensor:
    """Return the ``count`` candidates with the highest scores, by rank; hidden tokens come after all others."""
    hidden_BT = source.hidden_BT()
    if hidden_BT is not None:
        score_BT = score_BT.masked_fill(hidden_BT, torch.finfo(score_BT.dtype).min)
    return score_BT.masked_fill(~candidates_BT, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :count]


def check_finite(values: dict[str, Tensor], is_trained: bool) -> None:
    """Raise ``InputError`` where one of the values by name is not finite; on a GPU the host waits once for them all.

    Not in a training on a GPU: the epoch's loss, which is then no number, says so.
    """
    if torch.compiler.is_compiling():  # a graph cannot branch on values
        return
    on_gpu = next(iter(values.values())).is_cuda
    if on_gpu and (is_trained or torch.cuda.is_current_stream_capturing()):
        return
    found = torch.stack([torch.isfinite(value).all() for value in values.values()]).tolist()
    for name, is_finite in zip(values, found, strict=True):
        if not is_finite:
            raise InputError(f"token pruning: the {name} is not a finite number; check the weights and the images")


def _with_prefix(prefix: Prefix, anchors_BK: Tensor, rest_BM: Tensor) -> Tensor:
    first = torch.arange(prefix.count, device=rest_BM.device).expand(rest_BM.shape[0], -1)
    return torch.cat([first, anchors_BK, rest_BM], dim=1)
