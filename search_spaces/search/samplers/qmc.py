"""``qmc``: Sobol points over the flattened space."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from search_spaces.search.sampler import Options, Sampler, Setting
from search_spaces.study.parameters import at_quantile, is_constant

if TYPE_CHECKING:
    from search_spaces.search.memory import Memory


class QmcOptions(Options):
    """Options of the Sobol sequence."""

    scramble: bool = Field(default=True, description="Scramble the sequence by the study's seed.")


class QuasiMonteCarlo(Sampler):
    """The k-th proposal is the k-th point; a point that is refused is replaced by a random one."""

    options_type: ClassVar[type[Options]] = QmcOptions
    options: QmcOptions

    def draw(self, index: int, attempt: int, memory: Memory) -> Setting:
        """Return the setting at the k-th point."""
        from scipy.stats.qmc import Sobol

        space = self.problem.space
        names = [name for name, p in space.parameters.items() if not is_constant(p)]
        engine = Sobol(len(names), scramble=self.options.scramble, rng=self.problem.seed)
        if index:
            engine.fast_forward(index)
        point = dict(zip(names, engine.random(1)[0], strict=True))
        return space.decide(lambda name, parameter: at_quantile(parameter, float(point[name])))
