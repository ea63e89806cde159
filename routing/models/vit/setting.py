"""A complete setting of token reduction: the method, how many tokens it leaves, and in which blocks.

Shapes: B images, T tokens (those before the patches first), K kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from routing.config.registry import SELECTIONS
from routing.errors import InputError, choices, nearest
from routing.models.vit.block_methods import BlockMethod, Step
from routing.models.vit.host import Host
from routing.models.vit.positions import Positions
from routing.models.vit.schedule import EXAMPLE, Schedule
from routing.models.vit.section import PruningSection
from routing.models.vit.token_methods import BlockSize, TokenMethod
from routing.models.vit.token_predictor import Predictor
from routing.models.vit.token_selection import Selection

UNPRUNED = "none"


@dataclass(frozen=True)
class Pruning:
    """A complete setting: the method, and how many tokens are left where.

    selection: how many tokens one choice keeps, and by what. start_layer: the block before which it is made (counted
    from 0). schedule: in place of these two numbers, how many patches are left in which blocks. predictors: of a method
    that is learned, block -> what scores the patches before it; settings are equal whatever they are.
    """

    selection: Selection
    start_layer: int = 1
    method: str = "importance_diversity"
    schedule: Schedule | None = None
    predictors: Mapping[str, Predictor] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Find the method here and not where it is used: an exporter cannot trace the import of a module."""
        try:
            object.__setattr__(self, "_acting", SELECTIONS.get(self.method)())
        except InputError as error:
            raise InputError(f"pruning.method: {error}") from None

    @classmethod
    def of(cls, section: PruningSection) -> Pruning | None:
        """Return the setting of a configuration; None where it switches reduction off."""
        if section.method == UNPRUNED:
            return None
        chosen = Selection(section.k_anchors, section.top_m, section.alpha, section.direction, section.normalize)
        schedule = None if section.schedule is None else Schedule.of(section.schedule)
        return cls(chosen, section.start_layer, section.method, schedule)

    @property
    def acting(self) -> TokenMethod | BlockMethod:
        """The method itself."""
        acting: TokenMethod | BlockMethod = self.__dict__["_acting"]
        return acting

    @property
    def chooser(self) -> TokenMethod:
        """The method, one that chooses tokens before a block."""
        assert isinstance(self.acting, TokenMethod)
        return self.acting

    @property
    def comes_back(self) -> bool:
        """Whether tokens that a block does not take are there again after it."""
        return self.acting.come_back

    @property
    def keeps_places(self) -> bool:
        """Whether every token that is left is one of the image, and in all blocks that follow."""
        return isinstance(self.acting, TokenMethod) and self.acting.takes_mask

    def on(self, host: Host) -> Pruning:
        """Return the setting for a model: with the tokens before its patches.

        Raises:
            InputError: a setting that the model cannot take.
        """
        fitted = replace(self, selection=replace(self.selection, prefix=host.prefix))
        if fitted.steps(host) and not self.acting.takes_mask:  # else positions are not asked for, which some compute
            for positions in host.positions():
                self.check_positions(positions)
        return fitted

    def check_positions(self, positions: Positions) -> None:
        """Raise ``InputError`` where attention is given a mask or positions, which the method cannot take."""
        if not self.acting.takes_mask and not positions.are_none:
            raise InputError(
                f"pruning.method '{self.method}' cannot take an attention mask, nor positions inside attention "
                "(valid: a method that keeps tokens as they are, such as importance_diversity)"
            )

    def steps(self, host: Host, num_tokens: int | None = None) -> dict[int, Step]:
        """Return what is done at which block of a model, for images of ``num_tokens`` tokens (None: its own).

        Raises:
            InputError: a setting that the model cannot take.
        """
        total = num_tokens or host.num_tokens
        if self.schedule is None:
            return self._one_choice(host, total)
        self.selection.check(None)
        acting, patches = self.acting, total - host.prefix.count
        if isinstance(acting, BlockMethod):
            left = self.schedule.left(
                patches,
                host.depth,
                first=acting.first_block,
                fused=acting.fused,
                come_back=acting.come_back,
                most=lambda present: acting.most_taken(present, host.prefix.count),
            )
            return acting.steps(left, host, total)
        left = self.schedule.left(patches, host.depth)
        found = {}
        for index, count in left.items():
            kept = host.prefix.count + count
            if kept < total:
                self._check_predictor(index)
                alone = replace(self, selection=self.selection.keeping(count), start_layer=index, schedule=None)
                found[index] = Step("select", total, kept, alone)
                total = kept
        return found

    def _check_predictor(self, index: int) -> None:
        if self.acting.is_learned and str(index) not in (self.predictors or ()):
            valid = (
                f"the blocks of model.pruning.schedule: {choices(self.predictors)}"
                if self.predictors
                else "a run that trains it: model.pruning.method with training.reduce_tokens true"
            )
            raise InputError(
                f"pruning.method {self.method} is learned, and this model has no predictor before block {index} "
                f"(valid: {valid})"
            )

    def with_predictors(self, host: Host) -> Pruning:
        """Return the setting with untrained predictors before the blocks of its schedule, where its method has some."""
        if not self.acting.is_learned or self.schedule is None:
            return self
        found = nn.ModuleDict({str(index): Predictor(host.width) for index in self.schedule.places(host.depth)})
        like = next(host.blocks[0].parameters())
        return replace(self, predictors=found.to(like.device, like.dtype))

    def _one_choice(self, host: Host, num_tokens: int) -> dict[int, Step]:
        if self.acting.needs_schedule:
            raise InputError(f"pruning.method {self.method} needs pruning.schedule (valid: {EXAMPLE})")
        if not 1 <= self.start_layer < host.depth:
            raise InputError(
                f"pruning.start_layer {self.start_layer}: the model has blocks 0 to {host.depth - 1}, and the first is "
                f"never pruned (valid: 1 to {host.depth - 1})"
            )
        self.selection.check(num_tokens)
        return {self.start_layer: Step("select", num_tokens, self.selection.num_kept, self)}

    def fewest_tokens(self, host: Host, num_tokens: int | None = None) -> int:
        """Return the tokens of the block that takes fewest."""
        steps = self.steps(host, num_tokens).values()
        return min([step.left for step in steps], default=num_tokens or host.num_tokens)

    def with_rate(self, rate: float, host: Host) -> Pruning:
        """Return the setting at another keep rate: the share of patches that stay in a block, or in the end."""
        if self.schedule is not None:
            blocks = host.depth - self.acting.first_block
            return replace(self, schedule=self.schedule.with_rate(rate, host.num_patches, blocks))
        count = min(host.num_patches, max(2, math.ceil(rate * host.num_patches - 1e-9)))
        share = self.selection.k_anchors / (self.selection.k_anchors + self.selection.top_m)
        anchors = min(count - 1, max(1, round(share * count)))
        return replace(self, selection=replace(self.selection, k_anchors=anchors, top_m=count - anchors))

    def at_rate(self, rate: float, host: Host) -> Pruning:
        """Return ``with_rate`` for a model.

        Raises:
            InputError: a rate that the model or the method cannot take, or that a count per block does not reach.
        """
        try:
            setting = self.with_rate(rate, host).on(host)
            left, patches = setting.fewest_tokens(host) - host.prefix.count, host.num_patches
            is_count = self.schedule is not None and not self.schedule.blocks and not setting.comes_back
            if is_count and abs(left - rate * patches) > 1:
                raise InputError(f"{self.method} leaves {left} of {patches} patches (valid: a higher rate)")
        except InputError as error:
            raise InputError(f"keep rate {rate:g}: {error}") from None
        return setting

    def text(self) -> str:
        """Return the setting as a knob value: ``k_anchors=10,top_m=20,alpha=0.5,start_layer=2``.

        With a schedule: ``schedule=0.7@4/0.7@7``, and what else the method reads.
        """
        chosen = self.selection
        alpha = f"{chosen.alpha:g}" if float(f"{chosen.alpha:g}") == chosen.alpha else repr(chosen.alpha)
        if self.schedule is not None:
            values = {"k_anchors": str(chosen.k_anchors), "alpha": alpha}
            further = [f"{key}={values[key]}" for key in self.acting.reads]
            return ",".join([f"schedule={self.schedule.text()}", *further])
        return f"k_anchors={chosen.k_anchors},top_m={chosen.top_m},alpha={alpha},start_layer={self.start_layer}"

    def with_text(self, text: str) -> Pruning:
        """Return a copy with the values of ``text``, which may also name method and direction; keys left out stay."""
        found: dict[str, Any] = {}
        kinds: dict[str, Callable[[str], Any]] = {"k_anchors": int, "top_m": int, "alpha": float, "start_layer": int}
        kinds |= {"method": str, "direction": str, "schedule": Schedule.of}
        for item in text.split(","):
            key, _, value = (part.strip() for part in item.partition("="))
            if key not in kinds:
                raise InputError(
                    f"pruning '{text}': unknown key '{key}'{nearest(key, kinds)} (valid: {choices(kinds)})"
                )
            try:
                found[key] = kinds[key](value)
            except InputError:
                raise
            except ValueError:
                raise InputError(f"pruning '{text}': {key} must be a number, not '{value}'") from None
        if "schedule" not in found and {"top_m", "start_layer"} & set(found):
            found["schedule"] = None
        outside = {key: found.pop(key) for key in ("start_layer", "method", "schedule") if key in found}
        return replace(self, selection=replace(self.selection, **found), **outside)

    def multiply_adds(self, host: Host, num_tokens: int) -> int:
        """Return what choosing costs for one image of ``num_tokens``: projections, attention rows, cosines."""
        head_width = host.width // host.heads(host.parts(host.blocks[0])[1])
        return self.chooser.multiply_adds(BlockSize(num_tokens, host.width, head_width), self.selection)
