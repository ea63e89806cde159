"""``auto``: a Gaussian process while trials are few, then TPE."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from search_spaces.search.sampler import Options, Problem, Sampler, Setting
from search_spaces.search.samplers.gp import GaussianProcess, GpOptions
from search_spaces.search.samplers.tpe import Tpe, TpeOptions

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from search_spaces.search.memory import Memory


class AutoOptions(GpOptions):
    """Options of the Gaussian process, and when it hands over."""

    gp_trials: int = Field(
        default=150, ge=1, le=10_000, description="Ended trials from which TPE is used: the process takes cubic time."
    )


class Auto(Sampler):
    """The Gaussian process first, TPE after ``gp_trials`` ended trials."""

    options_type: ClassVar[type[Options]] = AutoOptions
    options: AutoOptions

    def __init__(self, problem: Problem, options: AutoOptions) -> None:
        super().__init__(problem, options)
        self._gp = GaussianProcess(problem, GpOptions(n_startup_trials=options.n_startup_trials))
        self._tpe = Tpe(problem, TpeOptions())

    def in_charge(self, memory: Memory) -> Sampler:
        """Return the sampler in use."""
        return self._gp if len(memory) < self.options.gp_trials else self._tpe

    def draw(self, index: int, attempt: int, memory: Memory) -> Setting | BaseSampler:
        """Draw from the sampler in use."""
        return self.in_charge(memory).draw(index, attempt, memory)

    def next(self, index: int, attempt: int, memory: Memory) -> Setting | BaseSampler:
        """Draw from the sampler in use, which has its own number of attempts."""
        return self.in_charge(memory).next(index, attempt, memory)
