"""Ablations: a baseline, declared changes of it, and every arm under the same seeds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from routing.config.run import RunConfig
from routing.config.section import dotted, nested
from routing.errors import InputError, choices, nearest
from routing.files.results_folder import BASELINE_ARM
from search_spaces.study.schema import AblationStudy, Study, SweepStudy
from search_spaces.study.script import space_of


@dataclass(frozen=True)
class Arm:
    """One setting to compare: its name, the keys it changes, and where the study file declares it."""

    name: str
    changes: dict[str, Any]
    path: tuple[str, ...] = ()

    def config(self, study: AblationStudy, seed: int) -> RunConfig:
        """Return the run of this arm under a seed."""
        split = {"dataset.seed": seed} if study.split_by_seed else {}
        return space_of(study, {}).config({**dotted(nested(self.changes)), **split, "seed": seed})


def declared_arms(study: AblationStudy) -> list[Arm]:
    """Return the arms of a study, the baseline first.

    Raises:
        InputError: two arms have the same name, an arm changes the seed, a factor does not fit the design, or
            ``seeds_per_arm`` names no arm or more seeds than there are.
    """
    declared = {
        "one_at_a_time": _one_at_a_time,
        "leave_one_out": _leave_one_out,
        "grid": _grid,
        "arms": _arms,
    }[study.design](study.factors)
    _check_names(declared)
    for name, count in study.seeds_per_arm.items():
        if name not in (names := [arm.name for arm in declared]):
            raise InputError(f"seeds_per_arm: no arm '{name}'{nearest(name, names)} (valid: {choices(names)})")
        if count > len(study.seeds):
            raise InputError(f"seeds_per_arm.{name}: {count} of {len(study.seeds)} seeds (valid: at most as many)")
    return declared


def planned_arms(study: AblationStudy) -> list[tuple[Arm, int]]:
    """Return every trial as its arm and its seed, in order: all arms under the first seed before the next one."""
    declared = declared_arms(study)
    count = {arm.name: study.seeds_per_arm.get(arm.name, len(study.seeds)) for arm in declared}
    return [(arm, seed) for n, seed in enumerate(study.seeds) for arm in declared if n < count[arm.name]]


def _one_at_a_time(factors: dict[str, dict[str, dict[str, Any]]]) -> list[Arm]:
    changed = [
        Arm(f"{factor}={level}", changes, (factor, level))
        for factor, levels in factors.items()
        for level, changes in levels.items()
    ]
    return [Arm(BASELINE_ARM, {}), *changed]


def _leave_one_out(factors: dict[str, dict[str, dict[str, Any]]]) -> list[Arm]:
    for factor, levels in factors.items():
        if len(levels) != 1:
            raise InputError(
                f"factor '{factor}' has {len(levels)} levels; leave_one_out takes one per factor, the one switched on"
            )
    on = {factor: next(iter(levels.values())) for factor, levels in factors.items()}
    without = [Arm(f"without {factor}", _merged([on[f] for f in on if f != factor]), (factor,)) for factor in on]
    return [Arm(BASELINE_ARM, _merged(list(on.values()))), *without]


def _grid(factors: dict[str, dict[str, dict[str, Any]]]) -> list[Arm]:
    options = [
        [(f"{factor}={level}", changes, (factor, level)) for level, changes in levels.items()]
        for factor, levels in factors.items()
    ]
    combined = [
        Arm(", ".join(name for name, _, _ in combination), _merged([c for _, c, _ in combination]), combination[0][2])
        for combination in itertools.product(*options)
    ]
    return [Arm(BASELINE_ARM, {}), *combined]


def _arms(factors: dict[str, dict[str, dict[str, Any]]]) -> list[Arm]:
    return [
        Arm(level, changes, (factor, level)) for factor, levels in factors.items() for level, changes in levels.items()
    ]


def _merged(changes: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for change in changes for key, value in change.items()}


def _check_names(declared: list[Arm]) -> None:
    names: set[str] = set()
    for arm in declared:
        if arm.name in names:
            raise InputError(f"two arms are named '{arm.name}'")
        if "seed" in arm.changes:
            raise InputError(f"arm '{arm.name}' changes 'seed'; every arm runs under the study's seeds")
        names.add(arm.name)


def planned_trials(study: Study, trials: int | None = None) -> int:
    """Return how many trials a study runs, ``trials`` of them if given.

    Raises:
        InputError: fewer than one, or more than an ablation has.
    """
    declared = study.trials if isinstance(study, SweepStudy) else len(planned_arms(study))
    if trials is None:
        return declared
    if trials < 1:
        raise InputError(f"trials must be at least 1, not {trials}")
    if not isinstance(study, SweepStudy) and trials > declared:
        raise InputError(f"this ablation has {declared} trials, every arm under every seed; {trials} are too many")
    return trials
