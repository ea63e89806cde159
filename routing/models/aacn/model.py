"""Attention-augmented conv net: the decision branch computes only the positions that the attention map keeps.

    backbone   image -> features F_s of every stage
    attention  positions of F_s -> linear -> multi-head self-attention -> map m_s over positions, vector a_s
    decision   w0 * head(sum over kept positions of m_s * expert(F_s)) + w1 * head(a),  w = softmax of a learned pair

The kept positions of a stage are those with the largest m_s, chosen image by image; their weights are renormalised.

Shapes: B batch, S attended stages, T positions of a stage, K kept, C channels, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.config.registry import BACKBONES
from routing.data import DataInfo
from routing.errors import InputError
from routing.models.aacn.section import AacnAttentionSection, AacnSection
from routing.models.attention import SelfAttention, attention_rows
from routing.models.backbones import Backbone
from routing.models.base import CountedPart, KnobValue, ModelOutput, VisionModel
from routing.models.layers import then_the_rest
from routing.models.patch.routers import CURVE_SHARES
from routing.models.pretrained import renormalised
from routing.models.torchvision_library import keep_statistics


def num_kept(positions: int, keep_ratio: float) -> int:
    """Return K, positions kept of a stage: the nearest count, at least one."""
    return max(1, min(positions, round(keep_ratio * positions)))


def keep_largest(map_BT: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return indices (B, K) and weights (B, K), summing to 1, of the ``count`` largest weights of each image."""
    kept = map_BT.topk(count, dim=1)
    return kept.indices, kept.values / kept.values.sum(dim=1, keepdim=True)


class StageAttention(nn.Module):
    """The attention branch of one stage: positions (B, T, C) -> map (B, T) that sums to 1, vector (B, D)."""

    def __init__(self, channels: int, width: int, heads: int) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.embed, self.norm = nn.Linear(channels, width), nn.LayerNorm(width)
        self.attend, self.score = SelfAttention(width, heads, dropout=0.0), nn.Linear(width, 1)

    def forward(self, positions_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Return map and vector."""
        tokens_BTD = self.embed(positions_BTC)
        tokens_BTD = self.norm(tokens_BTD + self.attend(tokens_BTD))
        map_BT = self.score(tokens_BTD).squeeze(-1).float().softmax(dim=1)
        return map_BT, torch.bmm(map_BT.to(tokens_BTD.dtype).unsqueeze(1), tokens_BTD).squeeze(1)

    def map_of_heads(self, positions_BTC: Tensor) -> Tensor:
        """Return the self-attention (B, H, T, T) from query (row) to key; ``forward`` never forms it."""
        projected = self.attend.in_proj(self.embed(positions_BTC)).unflatten(-1, (3, self.attend.heads, -1))
        queries_BHTE, keys_BHTE, _ = projected.permute(2, 0, 3, 1, 4).unbind(0)
        return attention_rows(queries_BHTE, keys_BHTE)

    def multiply_adds(self, positions: int) -> int:
        """Return the closed form of one image: linear layers, attention products, weighted sum."""
        linear = self.channels * self.width + 4 * self.width**2 + self.width
        return positions * (linear + self.width) + 2 * positions**2 * self.width


class AttentionBranch(nn.Module):
    """Attention of every attended stage, and a classifier on the vectors that only its own loss in training uses."""

    def __init__(self, channels: Sequence[int], settings: AacnAttentionSection, num_outputs: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(StageAttention(c, settings.width, settings.heads) for c in channels)
        self.classifier = nn.Linear(len(channels) * settings.width, num_outputs)


class PositionExpert(nn.Module):
    """Features (B, K, C) and weights (B, K) of kept positions -> the weighted sum (B, D) of Linear-ReLU of each.

    ``width`` 0: the weighted sum of the features themselves.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(channels, width), nn.ReLU()) if width else nn.Identity()
        self.width_out = width or channels
        self.multiply_adds = channels * width + self.width_out

    def forward(self, features_BKC: Tensor, weights_BK: Tensor) -> Tensor:
        """Return the sum."""
        features_BKD = self.layer(features_BKC)
        return torch.bmm(weights_BK.to(features_BKD.dtype).unsqueeze(1), features_BKD).squeeze(1)


class Heads(nn.Module):
    """Softmax-weighted sum of a linear head on the attended features and one on the attention vector."""

    def __init__(self, features: int, vector: int, num_outputs: int) -> None:
        super().__init__()
        self.features, self.vector = nn.Linear(features, num_outputs), nn.Linear(vector, num_outputs)
        self.mix = nn.Parameter(torch.zeros(2))

    def forward(self, features_BD: Tensor, vector_BD: Tensor) -> Tensor:
        """Return predictions (B, outputs)."""
        weights = self.mix.softmax(dim=0)
        return weights[0] * self.features(features_BD) + weights[1] * self.vector(vector_BD)


class Decision(nn.Module):
    """The decision branch: an expert per attended stage, then the heads (one head where there is no attention)."""

    def __init__(
        self, channels: Sequence[int], width: int, vector: int, num_outputs: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(PositionExpert(c, width) for c in channels)
        self.drop = nn.Dropout(dropout)
        features = sum(width or c for c in channels)
        self.heads = Heads(features, vector, num_outputs) if vector else nn.Linear(features, num_outputs)
        self.head_widths = (features, vector) if vector else (features,)


@dataclass
class Attended:
    """What does not depend on the knob: per stage positions (B, T, C) and map (B, T); vector (B, S * D) or None."""

    positions: list[Tensor]
    maps: list[Tensor]
    vector_BD: Tensor | None


class AttentionAugmentedNet(VisionModel):
    """Backbone, attention branch and decision branch; the knob is the share of positions the decision reads."""

    def __init__(self, section: AacnSection, info: DataInfo) -> None:
        super().__init__()
        settings = section.attention
        self.image_shape = (info.channels, info.input_size, info.input_size)
        self.num_outputs, self.alpha = info.num_outputs, settings.alpha
        chosen = section.backbone
        kind: type[Backbone] = BACKBONES.get(chosen.name)
        self.backbone = kind.of(chosen.name, info.channels, info.input_size, chosen.channels)
        self.pretrained = section.backbone.weights is not None
        keep_statistics(self, chosen.name, chosen.weights, info)
        available = len(self.backbone.stages)
        if settings.stages is not None and settings.stages > available:
            raise InputError(
                f"model.attention.stages {settings.stages}: backbone '{section.backbone.name}' has {available} stages "
                f"at {info.input_size} pixels (valid: 1 to {available})"
            )
        self.first_stage = available - (settings.stages or available)
        stages = self.backbone.stages[self.first_stage :]
        self.grids = [min(stage.size, settings.grid) for stage in stages]
        channels = [stage.channels for stage in stages]
        vector = len(stages) * settings.width if settings.enabled else 0
        if settings.enabled:
            self.attention = AttentionBranch(channels, settings, info.num_outputs)
            self.knob = "keep_ratio"
        self.attends = settings.enabled
        self.decision = Decision(channels, section.decision.width, vector, info.num_outputs, section.decision.dropout)
        self.keep_ratio = 1.0
        self.dense_flops = self.expected_flops()
        self.keep_ratio = section.decision.keep_ratio

    def depth_order(self) -> list[list[nn.Parameter]]:
        """The backbone's layers, then both branches at one rate."""
        return then_the_rest(self.backbone.depth_order(), self)

    def positions(self, images: Tensor) -> list[Tensor]:
        """Return the positions (B, T, C) of every attended stage."""
        features = self.backbone(renormalised(self, images))[self.first_stage :]
        pooled = [F.adaptive_avg_pool2d(f, grid) for f, grid in zip(features, self.grids, strict=True)]
        return [f.flatten(2).transpose(1, 2) for f in pooled]

    def attend(self, images: Tensor) -> Attended:
        """Run backbone and attention branch."""
        positions = self.positions(images)
        if not self.attends:
            return Attended(positions, [p.new_full(p.shape[:2], 1 / p.shape[1]) for p in positions], None)
        answers = [stage(p) for stage, p in zip(self.attention.stages, positions, strict=True)]
        return Attended(positions, [m for m, _ in answers], torch.cat([a for _, a in answers], dim=1))

    def decide(self, attended: Attended, keep_ratio: float) -> ModelOutput:
        """Run the decision branch on the positions kept."""
        features, units = [], {}
        for index, (positions_BTC, map_BT) in enumerate(zip(attended.positions, attended.maps, strict=True)):
            count = num_kept(map_BT.shape[1], keep_ratio)
            units[self._expert(index)] = torch.full((len(map_BT),), count)
            if count < map_BT.shape[1]:
                kept_BK, map_BT = keep_largest(map_BT, count)
                positions_BTC = positions_BTC.gather(1, kept_BK.unsqueeze(2).expand(-1, -1, positions_BTC.shape[2]))
            features.append(self.decision.experts[index](positions_BTC, map_BT))
        inputs = [torch.cat(features, dim=1)] + ([] if attended.vector_BD is None else [attended.vector_BD])
        inputs = [self.decision.drop(values) for values in inputs]
        output = ModelOutput(self.decision.heads(*inputs).float(), units_executed=units)
        if attended.vector_BD is not None:
            self._add_attention(output, attended.vector_BD)
        return output

    def _add_attention(self, output: ModelOutput, vector_BD: Tensor) -> None:
        kept = torch.stack(list(output.units_executed.values())).sum(0)
        output.routing_ratio = kept / sum(grid**2 for grid in self.grids)
        if self.training and self.alpha > 0:
            output.auxiliary["attention"] = (self.alpha, self.attention.classifier(vector_BD).float())
        if not self.training:
            output.metrics["vector_weight"] = self.decision.heads.mix.detach().softmax(dim=0)[1]

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict."""
        return self.decide(self.attend(images), self.keep_ratio)

    def _expert(self, index: int) -> str:
        return f"decision_stage{self.first_stage + index + 1}"

    def initialise(self, section: AacnSection) -> None:  # type: ignore[override]
        """Load the backbone's weights."""
        if section.backbone.weights is not None:
            self.backbone.load_pretrained(section.backbone.weights)

    def counted_parts(self) -> dict[str, CountedPart]:
        """Backbone, attention of each stage and heads once per image, experts per kept position."""
        parts = {
            "backbone": CountedPart(self.backbone, (torch.zeros(1, *self.image_shape),), self.backbone.multiply_adds)
        }
        for index, (grid, expert) in enumerate(zip(self.grids, self.decision.experts, strict=True)):
            channels = self.backbone.stages[self.first_stage + index].channels
            if self.attends:
                stage = self.attention.stages[index]
                cost = stage.multiply_adds(grid**2)
                name = f"attention_stage{self.first_stage + index + 1}"
                parts[name] = CountedPart(stage, (torch.zeros(1, grid**2, channels),), cost)
            row = (torch.zeros(1, 1, channels), torch.zeros(1, 1))
            parts[self._expert(index)] = CountedPart(expert, row, expert.multiply_adds, None)
        widths = self.decision.head_widths
        inputs = tuple(torch.zeros(1, width) for width in widths)
        parts["heads"] = CountedPart(self.decision.heads, inputs, sum(widths) * self.num_outputs)
        return parts

    def nominal_units(self) -> dict[str, float]:
        """Return the positions kept of each stage."""
        return {self._expert(i): num_kept(grid**2, self.keep_ratio) for i, grid in enumerate(self.grids)}

    def alternation(self) -> dict[str, tuple[str, ...]]:
        """First the attention branch; then, that frozen, the decision, and the backbone unless it is pretrained."""
        if not self.attends:
            return {}
        decision = ("decision",) if self.pretrained else ("backbone", "decision")
        return {"attention": ("attention",), "decision": decision}

    def loss_terms(self) -> tuple[str, ...]:
        """The task's, and that of the attention branch."""
        return ("task", "attention") if self.attends and self.alpha > 0 else ("task",)

    @torch.no_grad()
    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return m_s (B, 1, 1, T) of every attended stage: pools the features, selects the positions kept."""
        if not self.attends:
            raise InputError("this run has model.attention.enabled false: there is no attention to look at")
        maps = self.attend(images).maps
        return {f"stage{self.first_stage + i + 1}": map_BT[:, None, None] for i, map_BT in enumerate(maps)}

    @torch.no_grad()
    def inner_attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the self-attention of every attended stage, which mixes positions before m_s scores them."""
        if not self.attends:
            return {}
        stages = zip(self.attention.stages, self.positions(images), strict=True)
        return {
            f"stage{self.first_stage + index + 1} self-attention": stage.map_of_heads(positions)
            for index, (stage, positions) in enumerate(stages)
        }

    @property
    def default_knob_value(self) -> float | None:
        """The keep ratio as configured."""
        return self.keep_ratio if self.attends else None

    def knob_values(self, images: Sequence[Tensor]) -> list[KnobValue]:
        """Return one keep ratio for every different number of kept positions."""
        seen = {self._counts(self.keep_ratio)}
        values: list[KnobValue] = []
        for share in CURVE_SHARES:
            if self._counts(share) not in seen:
                seen.add(self._counts(share))
                values.append(share)
        return values

    def _counts(self, keep_ratio: float) -> tuple[int, ...]:
        return tuple(num_kept(grid**2, keep_ratio) for grid in self.grids)

    def along_knob(self, images: Tensor, values: Sequence[KnobValue]) -> Iterator[ModelOutput]:
        """Yield one output per keep ratio; backbone and attention run once."""
        attended = self.attend(images)
        for value in values:
            yield self.decide(attended, float(value))

    def check_knob(self, value: KnobValue) -> None:
        """A keep ratio is above 0 and at most 1."""
        super().check_knob(value)
        if not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise InputError(f"evaluation.knob_value {value!r}: not a keep ratio (valid: 0 < ratio <= 1)")

    def set_knob(self, value: KnobValue) -> None:
        """Make ``value`` the default keep ratio."""
        self.check_knob(value)
        self.keep_ratio = float(value)
