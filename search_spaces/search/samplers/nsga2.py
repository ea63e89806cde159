"""``nsga2``: Optuna's genetic algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from search_spaces.search.sampler import Options, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from search_spaces.search.memory import Memory


class Nsga2Options(Options):
    """Those of Optuna's sampler, by its names."""

    population_size: int = Field(default=20, ge=2, le=10_000, description="Trials of a generation.")
    mutation_prob: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Probability that a parameter is drawn again; null: one over their number.",
    )
    crossover_prob: float = Field(default=0.9, ge=0, le=1, description="Probability that two parents are crossed.")
    swapping_prob: float = Field(default=0.5, ge=0, le=1, description="Probability that a crossover swaps a parameter.")


class Nsga2(Sampler):
    """Trials of the past fill generations in the order they were run."""

    options_type: ClassVar[type[Options]] = Nsga2Options
    attempts: ClassVar[int] = 3
    options: Nsga2Options

    def draw(self, index: int, attempt: int, memory: Memory) -> BaseSampler:
        """Return the genetic algorithm, seeded for this attempt."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(
            seed=self.seed(index, attempt), constraints_func=self.noted_violations(), **self.options.model_dump()
        )

    def marks(self, position: int) -> dict[str, Any]:
        """Return the attribute in which the algorithm looks up the generation of a trial."""
        from optuna.samplers import NSGAIISampler

        return {NSGAIISampler._get_generation_key(): position // self.options.population_size}
