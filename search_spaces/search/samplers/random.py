"""``random``: independent draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.search.sampler import Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from search_spaces.search.memory import Memory


class Random(Sampler):
    """Every proposal is drawn with a generator of its own."""

    def draw(self, index: int, attempt: int, memory: Memory) -> BaseSampler:
        """Return the random sampler of this attempt."""
        return self.at_random(index, attempt)
