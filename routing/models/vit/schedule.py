"""Schedules of token reduction: after which blocks how many patches are left. Free of torch.

{4: 0.7, 7: 0.7, 10: 0.7}    a block and the share of the patches present that stay, as 0.7@4/0.7@7/0.7@10 in text
{4: 180, 7: 126}             a block and the number of patches that stay, 180@4/126@7
16                           this many patches fewer in every block
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from routing.errors import InputError

EXAMPLE = "{4: 0.7, 7: 0.7, 10: 0.7} (block: share or number of patches that stay), or 16 (fewer in every block)"
FEWEST = 2
"""Patches that a schedule leaves at least: an anchor and another one."""

_ROUNDING = 1e-9
"""A share of 0.7 of 130 patches is 91, whatever the last bit of the product says."""


@dataclass(frozen=True)
class Schedule:
    """``blocks``: pairs of a block and the share (float) or number (int) of patches that stay; or ``fewer`` in each."""

    blocks: tuple[tuple[int, int | float], ...] = ()
    fewer: int = 0

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
        if not found.blocks and found.fewer < 1:
            raise InputError(f"pruning.schedule {value!r} takes no token away (valid: {EXAMPLE})")
        return found

    @classmethod
    def _read(cls, value: Any) -> Schedule:
        try:
            if isinstance(value, str) and "@" in value:
                pairs = [item.strip().split("@") for item in value.split("/")]
                value = {block: _number(stay) for stay, block in pairs}
                if len(value) < len(pairs):
                    raise ValueError
            elif isinstance(value, str) and value.strip().startswith("{"):
                given = [item.split(":") for item in value.strip()[1:].removesuffix("}").split(",")]
                value = {block.strip(" '\""): stay for block, stay in given}
            if isinstance(value, Mapping):
                read = {int(block): _number(stay) for block, stay in value.items()}
                return cls(tuple(sorted(read.items())))
            if isinstance(value, bool):
                raise ValueError
            return cls(fewer=int(value))
        except (TypeError, ValueError):
            raise InputError(f"pruning.schedule {value!r} is no schedule (valid: {EXAMPLE})") from None

    def text(self) -> str:
        """Return it as ``of`` reads it."""
        return "/".join(f"{stay!r}@{block}" for block, stay in self.blocks) or str(self.fewer)

    def with_rate(self, rate: float, num_patches: int, num_blocks: int) -> Schedule:
        """Return the schedule with another rate: the share that stays in each block, or of all patches in the end."""
        if self.blocks:
            return Schedule(tuple((block, float(rate)) for block, _ in self.blocks))
        return Schedule(fewer=max(1, round(num_patches * (1 - rate) / num_blocks)))

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
        blocks = self.blocks or tuple((block, -self.fewer) for block in range(first, depth))
        found: dict[int, int] = {}
        for block, stay in blocks:
            if not first <= block < depth:
                raise InputError(
                    f"pruning.schedule: block {block}, but the model has blocks 0 to {depth - 1} "
                    f"(valid: {first} to {depth - 1})"
                )
            kept = math.ceil(stay * num_patches - _ROUNDING) if isinstance(stay, float) else int(stay)
            kept = num_patches - min(self.fewer, most(num_patches)) - fused if stay < 0 else kept
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


def _number(value: Any) -> int | float:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str):
        return int(value) if value.strip().isdigit() else float(value)
    return value if isinstance(value, int) else float(value)
