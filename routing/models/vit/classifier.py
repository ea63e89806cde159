"""A vision transformer as a model of this project, with token pruning as its knob.

Without ``training.reduce_tokens`` it acts in evaluation only. One trained model gives an operating point for every
setting; blocks before the first pruned one run once for all of them.

Shapes: B images, T tokens (those before the patches first), K kept, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.attention import AttentionLayer
from routing.models.base import CountedPart, KnobValue, ModelOutput, PartKey, PartName, VisionModel
from routing.models.chain import Chain, Stage
from routing.models.layers import around_blocks, parameters_of
from routing.models.vit.attention_maps import attention_maps
from routing.models.vit.block_methods import BlockMethod, block_multiply_adds
from routing.models.vit.hosts import Host, host_of
from routing.models.vit.links import Block, Ending
from routing.models.vit.reducer import part, run_blocks, units
from routing.models.vit.section import PruningSection
from routing.models.vit.setting import UNPRUNED, Pruning
from routing.models.vit.setting_grid import settings_worth_evaluating
from routing.models.vit.token_predictor import KEEP_RATE, KEEP_RATE_WEIGHT, run_masked, untrained
from routing.models.vit.token_pruning import pruned_by


class TransformerClassifier(VisionModel):
    """A transformer ``core`` with a pruning setting, and the cost of both.

    Subclasses define the steps before the first block and after the last one.

    Args:
        core: a module that ``host_of`` knows.
        pruning: the section; method ``none`` evaluates without pruning and gives its curve with the main method.
        image_shape: (C, S, S) that the core takes.
    """

    knob = "pruning"
    added_parts = ("predictors",)
    dense_flops: float

    def __init__(self, core: nn.Module, pruning: PruningSection, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.core = core
        self.image_shape = image_shape
        main = pruning.model_copy(update={"method": "importance_diversity"})
        setting = Pruning.of(main if pruning.method == UNPRUNED else pruning)
        assert setting is not None
        self.reference = self._fitted(setting)
        self.training_pruning: Pruning | None = None
        self.pruning = None if pruning.method == UNPRUNED else self.reference.on(self.host)
        self.dense_flops = self.cost_at(None)
        self._curve = settings_worth_evaluating(self.reference, pruning.grid, self.host)

    def _fitted(self, setting: Pruning) -> Pruning:
        """Return a setting for this model, whose ``predictors`` are those it is learned with, where it is."""
        setting = replace(setting, selection=replace(setting.selection, prefix=self.host.prefix))
        if not setting.acting.is_learned:
            return setting
        if self.reads_patches:
            raise InputError(
                f"model.pruning.method {setting.method} is trained with dropped patches hidden from attention, but the "
                "head of this model reads patches, the dropped ones too (valid: a model that reads its class token)"
            )
        setting = setting.with_predictors(self.host)
        if setting.predictors is not None:
            self.predictors = setting.predictors
        return setting

    @property
    def reads_patches(self) -> bool:
        """Whether the head is given more of the last block than the tokens before the patches."""
        return False

    @property
    def prunable(self) -> TransformerClassifier:
        """The model itself."""
        return self

    @property
    def host(self) -> Host:
        """The core as pruning and analysis see it."""
        return host_of(self.core)

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, T, D) that enter the first block."""

    @abstractmethod
    def classify(self, tokens_BTD: Tensor) -> Tensor:
        """Return logits (B, classes) of what leaves the last block."""

    @abstractmethod
    def ends(self) -> tuple[nn.Module, nn.Module]:
        """Return the modules with products before and after the blocks: patch embedding and head."""

    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        """``embedding`` (with positions), ``blocks``, ``head`` (with the last norm) of the core; what else there is."""
        parts = super().parts()
        del parts["core"]
        return {**around_blocks(self.core, self.host.blocks), **parts}

    def depth_order(self) -> list[list[nn.Parameter]]:
        """Embedding and positions, every block, then norm, head and what else there is."""
        parts = self.parts()
        blocks = [list(block.parameters()) for block in self.host.blocks]
        before, behind = parts.pop("embedding"), [item for name in parts if name != "blocks" for item in parts[name]]
        return [list(parameters_of(before)), *blocks, list(parameters_of(behind))]

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict; in training with ``training_pruning``, otherwise with the default setting."""
        pruning, tokens_BTD = self.training_pruning if self.training else self.pruning, self.embed(images)
        if self.training and pruning is not None and pruning.acting.is_learned:
            return self._learning(tokens_BTD, pruning)
        return self._from_block(tokens_BTD, 0, pruning)

    def _learning(self, tokens_BTD: Tensor, pruning: Pruning) -> ModelOutput:
        """Predict with masks in place of fewer tokens, so that the predictors learn; all tokens are computed."""
        assert pruning.predictors is not None
        masked = run_masked(self.host, pruning.predictors, pruning.steps(self.host, tokens_BTD.shape[1]), tokens_BTD)
        return ModelOutput(
            self.classify(masked.tokens).float(),
            losses={KEEP_RATE: KEEP_RATE_WEIGHT * masked.apart},
            tokens=masked.tokens,
            left=masked.left.detach(),
        )

    def loss_terms(self) -> tuple[str, ...]:
        """The task's, and of predictors how far the share they keep is from that of the schedule."""
        return (*super().loss_terms(), KEEP_RATE) if self.reference.predictors else super().loss_terms()

    @property
    def caution(self) -> str | None:
        """Which predictors have never been trained."""
        predictors = self.reference.predictors
        return None if predictors is None else untrained(predictors)

    def dense_path(self, images: Tensor, **facts: Tensor) -> ModelOutput:
        """Predict on all tokens."""
        return self._from_block(self.embed(images), 0, None)

    def chain(self) -> Chain:
        """Every block is a stage, the first behind the patch embedding; the head reads the class token."""
        parts = self.executed_parts({})
        tokens = (self.host.num_tokens, self.host.width)
        cost = self.block_multiply_adds(self.host.num_tokens)
        first = cost + parts["embedding"].per_unit
        stages = [
            Stage(Block(self, index), tokens if index else self.image_shape, tokens, cost if index else first)
            for index in range(self.host.depth)
        ]
        last = [layer for layer in self.ends()[1].modules() if isinstance(layer, nn.Linear)][-1]
        head = Stage(Ending(self), tokens, (last.out_features,), parts["head"].per_unit)
        return Chain(tuple(stages), head)

    def _from_block(self, tokens_BTD: Tensor, first: int, pruning: Pruning | None) -> ModelOutput:
        """Run the blocks from ``first`` on; what came before ran on all tokens."""
        before = tokens_BTD.shape[1]
        stream = run_blocks(self.host, pruning, tokens_BTD, first)
        logits = self.classify(stream.tokens).float()
        counts, fewest = self._units(pruning, before)
        units = {key: torch.full((logits.shape[0],), count) for key, count in counts.items()}
        return ModelOutput(
            logits,
            units_executed=units,
            routing_ratio=torch.full((logits.shape[0],), fewest / before, dtype=torch.float64),
            tokens=stream.tokens if stream.are_placed else stream.tokens[:, : self.host.prefix.count],
            kept=stream.kept if stream.are_placed else self._prefix_of(stream.tokens),
        )

    def _prefix_of(self, tokens_BTD: Tensor) -> Tensor:
        """Return the indices (B, P) of the tokens before the patches, which are never merged."""
        return torch.arange(self.host.prefix.count, device=tokens_BTD.device).expand(len(tokens_BTD), -1)

    def _units(self, pruning: Pruning | None, num_tokens: int | None = None) -> tuple[dict[PartKey, int], int]:
        """Return how often every conditional part runs for one image (``executed_parts``), and its fewest tokens."""
        found, last, fewest = units(self.host, pruning, num_tokens or self.host.num_tokens)
        return {**found, **self._pool_units(last)}, fewest

    def pool(self) -> tuple[nn.Module, int] | None:
        """Return what pools tokens by attention before the head, and how many prefix tokens it leaves out, if any."""
        return None

    def _pool_units(self, num_tokens: int) -> dict[PartKey, int]:
        pool = self.pool()
        return {} if pool is None else {PartKey("pool", num_tokens - pool[1]): 1}

    def cost_at(self, pruning: Pruning | None) -> float:
        """Return multiply-adds per image at a setting; None is unpruned."""
        units = {key: torch.tensor([count]) for key, count in self._units(pruning)[0].items()}
        return float(self.closed_form(units, 1)[0])

    def executed_parts(self, units_executed: Mapping[PartName, object]) -> dict[PartName, CountedPart]:
        """Return patch embedding, head, and a part per key: a ``block`` on its tokens, a ``select`` among them, ..."""
        embedding, head = self.ends()
        width = self.host.width
        image = torch.zeros(1, *self.image_shape)
        channels, size, _ = self.image_shape
        patches = self.host.num_patches
        parts: dict[PartName, CountedPart] = {
            "embedding": CountedPart(embedding, (image,), channels * size * size // patches * patches * width),
            "head": CountedPart(head, (torch.zeros(1, width),), self._head_multiply_adds(head)),
        }
        for key in units_executed:
            parts[key] = self._counted_pool(key.tokens) if key.kind == "pool" else part(self.host, key)
        return parts

    def _counted_pool(self, num_tokens: int) -> CountedPart:
        """Return attention pooling: keys and values of every token, one query per latent, then projection and MLP."""
        found = self.pool()
        assert found is not None
        pool, width = found[0], self.host.width
        latents = int(pool.latent_len)
        cost = sum(
            layer.in_features * layer.out_features * (num_tokens if layer is pool.kv else latents)
            for layer in pool.modules()
            if isinstance(layer, nn.Linear)
        )
        return CountedPart(pool, (torch.zeros(1, num_tokens, width),), cost + 2 * latents * num_tokens * width, None)

    def block_multiply_adds(self, num_tokens: int) -> int:
        """Return the closed form of one block."""
        return block_multiply_adds(self.host, num_tokens)

    @staticmethod
    def _head_multiply_adds(head: nn.Module) -> int:
        return sum(layer.in_features * layer.out_features for layer in head.modules() if isinstance(layer, nn.Linear))

    def counted_parts(self) -> dict[PartName, CountedPart]:
        """The parts at the configured pruning."""
        return self.executed_parts(self.nominal_units())

    def nominal_units(self) -> dict[PartName, float]:
        """Return how often each part runs at the configured pruning; known before training."""
        return {key: float(count) for key, count in self._units(self.pruning)[0].items()}

    @property
    def default_knob_value(self) -> KnobValue:
        """The setting as text, or ``none``."""
        return UNPRUNED if self.pruning is None else self.pruning.text()

    def knob_values(self, images: Sequence[Tensor]) -> list[KnobValue]:
        """Return every setting of the grid that fits the model, and ``none``."""
        return list(dict.fromkeys([*(pruning.text() for pruning in self._curve), UNPRUNED]))

    def along_knob(self, images: Tensor, values: Sequence[KnobValue]) -> Iterator[ModelOutput]:
        """Yield one output per setting; blocks before the first pruned one run once for all settings."""
        host, entering = self.host, [self.embed(images)]
        positions = host.positions()
        for value in values:
            pruning = self._setting(value)
            first = min({} if pruning is None else pruning.steps(host, entering[0].shape[1]), default=host.depth)
            while len(entering) <= first:
                index = len(entering) - 1
                entering.append(host.run(host.blocks[index], entering[-1], positions[index]))
            yield self._from_block(entering[first], first, pruning)

    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the attention of every block on all tokens; inside ``pruned(model.core, ...)`` on those kept."""
        maps = attention_maps(self.core, images, forward=lambda batch: self._from_block(self.embed(batch), 0, None))
        return {f"block {index}": values for index, values in maps.items()}

    def attention_layers(self, images: Tensor, pruning: Pruning | None = None) -> list[AttentionLayer]:
        """Return the attention of every block on all tokens, or under a pruning setting on those kept.

        Raises:
            InputError: the setting merges tokens, or acts inside blocks.
        """
        if pruning is not None and isinstance(pruning.acting, BlockMethod):
            raise InputError(
                f"attention under pruning.method '{pruning.method}' cannot be drawn: its tokens have no place in the "
                "image (valid: a method that keeps tokens as they are, such as importance_diversity)"
            )
        with pruned_by(self.core, pruning) as record:
            maps = self.attention_maps(images)
        layers, host = [], self.host
        for index, (name, layer) in enumerate(maps.items()):
            kept = record.kept_at(index)
            if layer.shape[3] != host.num_tokens and kept is None:
                raise InputError("merged tokens have no place in the image: attention under 'merge' cannot be drawn")
            layers.append(
                AttentionLayer(
                    name, layer, host.grid, has_cls=host.prefix.has_cls, kept=kept, num_prefix=host.prefix.count
                )
            )
        return layers

    @contextmanager
    def under(self, pruning: Pruning | None) -> Iterator[None]:
        """Evaluate with this setting inside the context; None is unpruned."""
        before, self.pruning = self.pruning, pruning
        try:
            yield
        finally:
            self.pruning = before

    def check_knob(self, value: KnobValue) -> None:
        """A setting of token pruning that a model of this size can take, or ``none``."""
        for key in ("method", "direction"):
            if f"{key}=" in str(value).replace(" ", ""):
                raise InputError(f"evaluation.knob_value {value}: {key} is no part of it; set model.pruning.{key}")
        pruning = self._setting(value)
        if pruning is not None:
            pruning.on(self.host)

    def set_knob(self, value: KnobValue) -> None:
        """Make a setting the default."""
        self.check_knob(value)
        self.pruning = self._setting(value)

    def _setting(self, value: KnobValue) -> Pruning | None:
        return None if value == UNPRUNED else self.reference.with_text(str(value))
