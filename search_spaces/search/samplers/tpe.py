"""``tpe``: Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from search_spaces.search.sampler import Options, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from search_spaces.search.memory import Memory


class TpeOptions(Options):
    """Those of Optuna's sampler, by its names."""

    n_startup_trials: int = Field(default=10, ge=1, le=10_000, description="Finished trials before it models.")
    n_ei_candidates: int = Field(default=24, ge=1, le=10_000, description="Candidates to choose the best from.")
    multivariate: bool | None = Field(default=None, description="Model parameters together; null: where group is.")
    group: bool = Field(default=False, description="Model parameters that are active together in one group.")

    @model_validator(mode="after")
    def _a_group_is_multivariate(self) -> TpeOptions:
        if self.group and self.multivariate is False:
            raise ValueError("sampler option group needs multivariate: true")
        return self


class Tpe(Sampler):
    """One parameter at a time unless options say otherwise, with the constant liar for running trials."""

    options_type: ClassVar[type[Options]] = TpeOptions
    attempts: ClassVar[int] = 3
    options: TpeOptions

    def draw(self, index: int, attempt: int, memory: Memory) -> BaseSampler:
        """Return the estimator, seeded for this attempt."""
        from optuna.samplers import TPESampler

        return TPESampler(
            seed=self.seed(index, attempt),
            constant_liar=True,
            n_startup_trials=self.options.n_startup_trials,
            n_ei_candidates=self.options.n_ei_candidates,
            multivariate=self.options.group if self.options.multivariate is None else self.options.multivariate,
            group=self.options.group,
            constraints_func=self.noted_violations(),
        )
