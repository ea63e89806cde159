"""Schedules of token reduction: after which blocks how many patches are left. Free of torch.

{4: 0.7, 7: 0.7, 10: 0.7}    a block and the share of the patches present that stay, as 0.7@4/0.7@7/0.7@10 in text
{4: 180, 7: 126}             a block and the number of patches that stay, 180@4/126@7
16                           this many patches fewer in every block; 32/3: 32 fewer in three blocks, 11, 10 and 11
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from routing.errors import InputError

EXAMPLE = (
    "{4: 0.7, 7: 0.7, 10: 0.7} (block: share or number of patches that stay), as text 0.7@4/0.7@7/0.7@10, or 16 (fewer "
    "in every block)"
)
FEWEST = 2
"""Patches that a schedule leaves at least: an anchor and another one."""

_ROUNDING = 1e-9
"""A share of 0.7 of 130 patches is 91, whatever the last bit of the product says."""


@dataclass(frozen=True)
class Schedule:
    """``blocks``: pairs of a block and the share (float) or number (int) of patches that stay; or ``fewer`` in each."""

    blocks: tuple[tuple[int, int | float], ...] = ()
    fewer: int | Fraction = 0
    counted: tuple[int, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Take ``fewer`` apart: an exporter cannot trace fractions."""
        object.__setattr__(self, "counted", (self.fewer.numerator, self.fewer.denominator))

    @classmethod
    def of(cls, value: Any) -> Schedule:
        """Return the schedule of a mapping, a count or a text.

        Raises:
            InputError: neither of these, an empty one, or a share or number that leaves nothing.
        """
        found = cls._read(value)
        for block, stay in found.blocks:
            if stay <= 0 or (isinstance(stay, float) and not stay <= 1):
                raise InputError(
                    f"pruning.schedule: block {block} keeps {stay:g} of its patches (valid: a share above 0 and "
                    f"up to 1, or a number of patches from {FEWEST} on)"
                )
        if not found.blocks and found.fewer <= 0:
            raise InputError(f"pruning.schedule {value!r} takes no token away (valid: {EXAMPLE})")
        return found

    @classmethod
    def _read(cls, value: Any) -> Schedule:
        try:
            if isinstance(value, str) and "@" in value:
                pairs = [item.strip().split("@") for item in value.split("/")]
                return cls(_blocks((block, stay) for stay, block in pairs))
            if isinstance(value, str) and (inside := re.fullmatch(r"\s*\{(.*)\}\s*", value)):
                given = [item.split(":") for item in inside[1].split(",")]
                return cls(_blocks((block.strip(" '\""), stay) for block, stay in given))
            if isinstance(value, Mapping):
                return cls(_blocks(value.items()))
            if isinstance(value, str) and re.fullmatch(r"\s*\d+/\d+\s*", value):
                return cls(fewer=Fraction(value.strip()))
            return cls(fewer=_count(value))
        except (TypeError, ValueError, ZeroDivisionError):
            raise InputError(f"pruning.schedule {value!r} is no schedule (valid: {EXAMPLE})") from None

    def text(self) -> str:
        """Return it as ``of`` reads it."""
        return "/".join(f"{stay!r}@{block}" for block, stay in self.blocks) or str(self.fewer)

    def with_rate(self, rate: float, num_patches: int, num_blocks: int) -> Schedule:
        """Return the schedule with another rate: the share that stays in each block, or of all patches in the end.

        What a count does not divide evenly is spread over the blocks; a rate of 1 takes nothing away.
        """
        if self.blocks:
            return Schedule(tuple((block, float(rate)) for block, _ in self.blocks))
        return Schedule(fewer=Fraction(round(num_patches * (1 - rate)), num_blocks))

    def places(self, depth: int, first: int = 1) -> tuple[int, ...]:
        """Return its blocks, of a count every one from ``first`` on."""
        return tuple(block for block, _ in self.blocks) or tuple(range(first, depth))

    def left(
        self,
        num_patches: int,
        depth: int,
        *,
        first: int = 1,
        fused: int = 0,
        come_back: bool = False,
        most: Callable[[int], int] = int,
    ) -> dict[int, int]:
        """Return the patches that are kept in every block of the schedule, of those present there.

        Args:
            num_patches: before the first block.
            depth: blocks of the model.
            first: the first block in which the method can take tokens away.
            fused: tokens that a block adds in place of those it takes away; they count as patches further on.
            come_back: whether all patches are there again after the block.
            most: patches present -> how many of them a block can take away; a count goes no further.

        Raises:
            InputError: a block that the model does not have, or fewer than two patches left.
        """
        blocks = self.blocks or tuple((block, -1) for block in self.places(depth, first))
        found: dict[int, int] = {}
        for place, (block, stay) in enumerate(blocks):
            if not first <= block < depth:
                raise InputError(
                    f"pruning.schedule: block {block}, but the model has blocks 0 to {depth - 1} "
                    f"(valid: {first} to {depth - 1})"
                )
            kept = math.ceil(stay * num_patches - _ROUNDING) if isinstance(stay, float) else int(stay)
            if stay < 0 and (taken := min(self._taken(place), most(num_patches))):
                kept = num_patches - taken - fused
            elif stay < 0:
                kept = num_patches
            if kept < FEWEST:
                raise InputError(
                    f"pruning.schedule {self.text()}: block {block} would leave {max(0, int(kept))} of {num_patches} "
                    f"patches (valid: at least {FEWEST} everywhere)"
                )
            if kept > num_patches:
                raise InputError(
                    f"pruning.schedule {self.text()}: block {block} keeps {kept} patches, but {num_patches} are there"
                )
            found[block] = int(kept)
            if kept + fused < num_patches and not come_back:
                num_patches = int(kept) + fused
        return found

    def _taken(self, place: int) -> int:
        """Return how many fewer the block at this place of the schedule leaves, counted from 0."""
        count, blocks = self.counted  # half-way up, in whole numbers
        before, after = ((2 * count * reached + blocks) // (2 * blocks) for reached in (place, place + 1))
        return after - before


def _blocks(pairs: Iterable[tuple[Any, Any]]) -> tuple[tuple[int, int | float], ...]:
    """Return pairs in the order of their blocks; raises ``ValueError`` for what is no block, or one named twice."""
    read = [(_count(block), _number(stay)) for block, stay in pairs]
    if len(dict(read)) < len(read) or any(block < 0 for block, _ in read):
        raise ValueError
    return tuple(sorted(read))


def _count(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError
    return value


def _number(value: Any) -> int | float:
    return float(value) if isinstance(value, float) or not str(value).strip().isdecimal() else _count(value)
