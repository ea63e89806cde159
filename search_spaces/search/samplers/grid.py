"""``grid``: every combination of the space."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from search_spaces.search.sampler import Options, Problem, Sampler, Setting
from search_spaces.study.schema import MAX_GRID

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from search_spaces.search.memory import Memory


class GridOptions(Options):
    """Options of the grid."""

    points: int = Field(default=5, ge=1, le=MAX_GRID, description="Values of a float range that the grid visits.")


class Grid(Sampler):
    """Combinations in the order of the space, the last parameter first; those that were tried are left out."""

    options_type: ClassVar[type[Options]] = GridOptions
    options: GridOptions

    def __init__(self, problem: Problem, options: GridOptions) -> None:
        super().__init__(problem, options)
        self._grid = problem.space.grid(options.points)

    def settings(self) -> list[Setting]:
        """Return the combinations."""
        return self._grid

    def draw(self, index: int, attempt: int, memory: Memory) -> BaseSampler:
        """Never called: the settings are known in advance."""
        return self.at_random(index, attempt)
