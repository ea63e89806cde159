"""``routed_vit``: Mixture-of-Depths (arXiv 2404.02258). Tokens a block does not take skip it and come back after it.

    block 0: all tokens -> scores -> block 1: CLS and the K best tokens attend and pass the MLP, the rest waits -> ...

Scores are the attention that each token receives in the block before, mean over heads and queries (A-MoD, arXiv
2412.20875): no parameters, and no products that the block would not have done. A learned score scales what a routed
block adds, so that it has a gradient. Training gathers the same K tokens as inference.

Shapes: B images, T tokens (CLS is token 0), N = T - 1 patches, K patches a routed block takes, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from routing.data import DataInfo
from routing.errors import InputError
from routing.models.base import CountedPart, KnobValue, ModelOutput, VisionModel
from routing.models.layers import around_blocks, parameters_of
from routing.models.vit.attention_maps import attention_maps
from routing.models.vit.block_methods import block_multiply_adds
from routing.models.vit.hosts import OwnHost
from routing.models.vit.model import own_transformer
from routing.models.vit.network import Block
from routing.models.vit.opened import run_received
from routing.models.vit.positions import Positions
from routing.models.vit.section import RoutedVitSection

CURVE_CAPACITIES = (0.06, 0.12, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)
NOT_SHIPPED = {"random": "draws tokens at random", "permuted": "uses the scores of another image"}
EVALUATION_SEED = 20_240_917


class RoutedVit(VisionModel):
    """This project's ``VisionTransformer`` with routed blocks; the knob is their capacity."""

    knob = "capacity"

    def __init__(self, section: RoutedVitSection, info: DataInfo) -> None:
        super().__init__()
        self.core = own_transformer(section, info)
        self.image_shape = (info.channels, info.input_size, info.input_size)
        self.width = section.width
        self.every, self.scores = section.every, section.scores
        self.not_shipped = NOT_SHIPPED.get(self.scores)
        if self.scores == "learned":
            self.routers = nn.ModuleList(nn.Linear(section.width, 1) for _ in self.routed_blocks)
        self.capacity = 1.0
        self.dense_flops = self.expected_flops()
        self.capacity = section.capacity

    @property
    def num_patches(self) -> int:
        """N."""
        return self.core.num_tokens - 1

    @property
    def routed_blocks(self) -> tuple[int, ...]:
        """Indices of the routed blocks, from 0; the block before each runs on all tokens."""
        return tuple(range(self.every - 1, len(self.core.blocks), self.every))

    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        """``embedding``, ``blocks`` and ``head``; ``routers`` where scores are learned."""
        parts = super().parts()
        del parts["core"]
        return {**around_blocks(self.core, list(self.core.blocks)), **parts}

    def depth_order(self) -> list[list[nn.Parameter]]:
        """Embedding and positions, every block with its router, then norm and head."""
        parts = self.parts()
        blocks = [list(block.parameters()) for block in self.core.blocks]
        for index, router in zip(self.routed_blocks, getattr(self, "routers", ()), strict=False):
            blocks[index].extend(router.parameters())
        return [list(parameters_of(parts["embedding"])), *blocks, list(parameters_of(parts["head"]))]

    def num_taken(self, capacity: float) -> int:
        """Return K: the nearest count of patches, at least one."""
        return max(1, min(self.num_patches, round(capacity * self.num_patches)))

    @property
    def skips_in_training(self) -> bool:
        """Where its capacity is below the number of patches."""
        return self.num_taken(self.capacity) < self.num_patches

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict; sparse in training as well."""
        return self.at(images, self.capacity, self.scores)

    def at(self, images: Tensor, capacity: float, scores: str) -> ModelOutput:
        """Predict at a capacity with tokens chosen by these scores."""
        taken, tokens_BTD = self.num_taken(capacity), self.core.embed(images)
        received_BT, host = tokens_BTD.new_zeros(tokens_BTD.shape[:2]), OwnHost(self.core)
        for index, block in enumerate(self.core.blocks):
            assert isinstance(block, Block)
            if index in self.routed_blocks:
                if taken < self.num_patches:
                    tokens_BTD = self._routed(block, index, tokens_BTD, received_BT, taken, scores)
                    continue
                tokens_BTD = self._whole(block, index, tokens_BTD)
            elif index + 1 in self.routed_blocks:
                tokens_BTD, received_BT = run_received(host, block, tokens_BTD, Positions())
            else:
                tokens_BTD = block(tokens_BTD)
        return self._output(self.core.classify(tokens_BTD).float(), taken)

    def _routed(
        self, block: Block, index: int, tokens_BTD: Tensor, received_BT: Tensor, taken: int, scores: str
    ) -> Tensor:
        """Run CLS and the best patches through the block and put them back in their places."""
        own_BT = self._learned(index, tokens_BTD) if self.scores == "learned" else received_BT
        scores_BN = self._scores(index, own_BT, scores)
        best_BK = scores_BN.argsort(dim=1, descending=True, stable=True)[:, :taken].sort(dim=1).values
        rows_BK = torch.cat([torch.zeros_like(best_BK[:, :1]), best_BK + 1], dim=1)
        places = rows_BK[..., None].expand(-1, -1, tokens_BTD.shape[2])
        before_BKD = tokens_BTD.gather(1, places)
        after_BKD = block(before_BKD)
        if self.scores == "learned":
            gate_BK = torch.sigmoid(own_BT).gather(1, rows_BK)
            after_BKD = before_BKD + gate_BK[..., None].to(after_BKD.dtype) * (after_BKD - before_BKD)
        return tokens_BTD.scatter(1, places, after_BKD.to(tokens_BTD.dtype))

    def _whole(self, block: Block, index: int, tokens_BTD: Tensor) -> Tensor:
        """Run a routed block that takes every token; a learned score scales what it adds all the same."""
        after_BTD: Tensor = block(tokens_BTD)
        if self.scores != "learned":
            return after_BTD
        gate_BT = torch.sigmoid(self._learned(index, tokens_BTD))
        return tokens_BTD + gate_BT[..., None].to(after_BTD.dtype) * (after_BTD - tokens_BTD)

    def _learned(self, index: int, tokens_BTD: Tensor) -> Tensor:
        """Return the learned scores (B, T); in float32 also under autocast, a rounded score changes the choice."""
        with torch.autocast(tokens_BTD.device.type, enabled=False):
            return self.routers[self.routed_blocks.index(index)](tokens_BTD.float()).squeeze(-1)

    def _scores(self, index: int, own_BT: Tensor, scores: str) -> Tensor:
        """Return what the patches (B, N) are chosen by, without gradient: their own scores, or those of a control."""
        if scores == "random":
            shape = len(own_BT), self.num_patches
            if self.training:
                return torch.rand(shape, device=own_BT.device)
            generator = torch.Generator().manual_seed(EVALUATION_SEED + index)
            return torch.rand(shape, generator=generator).to(own_BT.device, non_blocking=True)
        scores_BN = own_BT.detach()[:, 1:]
        return scores_BN.roll(1, dims=0) if scores == "permuted" else scores_BN

    def controls(self) -> dict[str, Callable[[Tensor], ModelOutput]]:
        """Return other ways of running the trained model: tokens at random, by another image's scores, all of them."""
        return {
            "random": lambda images: self.at(images, self.capacity, "random"),
            "permuted": lambda images: self.at(images, self.capacity, "permuted"),
            "full": lambda images: self.at(images, 1.0, self.scores),
        }

    def _output(self, logits: Tensor, taken: int) -> ModelOutput:
        units = {name: torch.full((logits.shape[0],), count) for name, count in self._units(taken).items()}
        ratio = torch.full((logits.shape[0],), taken / self.num_patches, dtype=torch.float64)
        return ModelOutput(logits, units_executed=units, routing_ratio=ratio)

    def _units(self, taken: int) -> dict[str, int]:
        """Return how often every conditional part runs for one image, by name (see ``executed_parts``)."""
        whole, routed = self.core.num_tokens, len(self.routed_blocks)
        units = {f"block@{whole}": len(self.core.blocks) - routed}
        units[f"block@{taken + 1}"] = units.get(f"block@{taken + 1}", 0) + routed
        return units

    def executed_parts(self, units_executed: Mapping[str, Any]) -> dict[str, CountedPart]:
        """Return patch embedding, routers, head, and ``block@T`` for every number T of tokens a block runs on."""
        tokens, width = self.core.num_tokens, self.width
        channels, side, _ = self.image_shape
        head, host = self.core.head, OwnHost(self.core)
        parts = {
            "embedding": CountedPart(
                self.core.embedding, (torch.zeros(1, *self.image_shape),), channels * side * side * width
            ),
            "head": CountedPart(head, (torch.zeros(1, width),), width * head.out_features),
        }
        if self.scores == "learned":
            rows, count = (torch.zeros(1, tokens, width),), len(self.routed_blocks)
            parts["routers"] = CountedPart(self.routers[0], rows, tokens * width, count)
        for name in units_executed:
            count = int(name.partition("@")[2])
            block, inputs = self.core.blocks[0], (torch.zeros(1, count, width),)
            parts[name] = CountedPart(block, inputs, block_multiply_adds(host, count), None)
        return parts

    def counted_parts(self) -> dict[str, CountedPart]:
        """The parts at the default capacity."""
        return self.executed_parts(self.nominal_units())

    def nominal_units(self) -> dict[str, float]:
        """Return how often each part runs at the default capacity; known before training."""
        return {name: float(count) for name, count in self._units(self.num_taken(self.capacity)).items()}

    @property
    def default_knob_value(self) -> float:
        """The capacity as configured."""
        return self.capacity

    def knob_values(self, images: Sequence[Tensor]) -> list[KnobValue]:
        """Return one capacity for every different number of tokens along the curve."""
        counts = {self.num_taken(capacity) for capacity in CURVE_CAPACITIES} - {self.num_taken(self.capacity)}
        return [count / self.num_patches for count in sorted(counts)]

    def along_knob(self, images: Tensor, values: Sequence[KnobValue]) -> Iterator[ModelOutput]:
        """Yield one output per capacity."""
        for value in values:
            yield self.at(images, float(value), self.scores)

    def check_knob(self, value: KnobValue) -> None:
        """A capacity is above 0 and at most 1."""
        if not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise InputError(f"evaluation.knob_value {value!r}: not a capacity (valid: 0 < capacity <= 1)")

    def set_knob(self, value: KnobValue) -> None:
        """Make ``value`` the default capacity."""
        self.check_knob(value)
        self.capacity = float(value)

    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the attention of every block when all of them run on all tokens."""
        maps = attention_maps(self.core, images)
        return {f"block {index}": values for index, values in maps.items()}
