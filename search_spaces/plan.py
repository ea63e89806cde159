"""The plan of a study before it runs: trials, cost, and the space in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from routing.config.run import RunConfig
from routing.config.script import AnyRun, ScriptRun
from routing.config.section import dotted, nested
from routing.constraints import Constraint
from routing.errors import InputError
from routing.files.results_folder import ARM
from search_spaces.search.rules import rule_of
from search_spaces.study.ablation import declared_arms, planned_arms, planned_trials
from search_spaces.study.parameters import at_quantile, extremes
from search_spaces.study.schema import Parameter, SamplerSection, Study, SweepStudy, constraints_of
from search_spaces.study.script import ScriptStudy, space_of
from search_spaces.study.space import Space

_COUNTED = 100_000
"""Settings of a space that are counted one by one."""


@dataclass(frozen=True)
class Blueprint:
    """What a driver needs of a study, sweep or ablation alike.

    space: parameters of the ledger. configure: a setting of it -> its run. enqueue: ledger values that run first.
    total: trials in all. sampler: chooses the rest. samples: False when every setting is enqueued.
    keys: of a script, those that differ from run to run.
    """

    space: Space
    configure: Callable[[dict[str, Any]], AnyRun]
    enqueue: list[dict[str, Any]]
    total: int
    sampler: SamplerSection
    samples: bool = True
    keys: tuple[str, ...] = ()


def blueprint(study: Study, trials: int | None = None) -> Blueprint:
    """Return the blueprint of a study; an ablation is a space of arm and seed whose every combination is enqueued.

    Args:
        trials: of an ablation, its first ones only; a sweep says itself how many it has.
    """
    if isinstance(study, SweepStudy):
        space = space_of(study)
        enqueued = [space.labels(setting) for setting in study.enqueue]
        keys = tuple(study.space)
        return Blueprint(space, _placed(space.config, study), enqueued, study.trials, study.sampler, keys=keys)
    declared = {arm.name: arm for arm in declared_arms(study)}
    table = Space({ARM: Parameter(choice=tuple(declared)), "seed": Parameter(choice=study.seeds)}, {})
    every = [{ARM: arm.name, "seed": seed} for arm, seed in planned_arms(study)][:trials]

    def configure(values: dict[str, Any]) -> AnyRun:
        if values[ARM] not in declared:
            raise InputError(f"arm '{values['arm']}' is no longer in the study")
        return declared[values[ARM]].config(study, values["seed"])

    sampler = SamplerSection(name="random")
    changed = tuple(dict.fromkeys(key for arm in declared.values() for key in dotted(nested(arm.changes))))
    return Blueprint(table, _placed(configure, study), every, len(every), sampler, samples=False, keys=changed)


def _placed(configure: Callable[[dict[str, Any]], AnyRun], study: Study) -> Callable[[dict[str, Any]], AnyRun]:
    """Keep trials without a share of a GPU off it."""

    def placed(values: dict[str, Any]) -> AnyRun:
        config = configure(values)
        if isinstance(config, ScriptRun):
            return config
        device = study.resources.placed(config.device)
        return config if device == config.device else config.replace(device=device)

    return placed


def dry_run(study: Study, trials: int | None = None) -> str:
    """Return what would run, as text: trials, estimated cost, the space or the arms in words.

    Raises:
        InputError: no setting of the study can run.
    """
    check_device(study)
    total = planned_trials(study, trials)
    lines = [f"{study.kind} '{study.name}': {total} trials"]
    lines += [f"question: {study.question}"] if study.question else []
    lines += [f"cost: {study.cost}"] if study.cost else []
    if isinstance(study, ScriptStudy):
        lines += [*_of_script(study), *_too_few_settings(study, total)]
    else:
        configs = spread(study)
        estimate = _estimate(study, total, configs)  # first says whether any can run
        lines += [*_data(configs), *estimate, *_too_few_settings(study, total)]
    goals = ", ".join(f"{o.goal} {o.metric} (reference {o.reference:g})" for o in study.objectives)
    lines.append(f"objectives: {goals}")
    if isinstance(study, SweepStudy):
        lines.append(f"sampler: {study.sampler.name}, seed {study.sampler.seed}")
        lines += [f"constraint: {text}" for text in study.constraints]
        lines.append("space:")
        lines += [f"  {line}" for line in space_of(study).words()]
        if study.enqueue:
            lines.append("first of all:")
            lines += [f"  {', '.join(f'{k} = {v}' for k, v in setting.items())}" for setting in study.enqueue]
    else:
        fewer = "".join(f"; {name}: the first {count}" for name, count in study.seeds_per_arm.items())
        lines.append(f"design: {study.design}, seeds {', '.join(map(str, study.seeds))}{fewer}")
        lines.append("arms:")
        for arm in declared_arms(study):
            changed = ", ".join(f"{key} = {value}" for key, value in arm.changes.items())
            lines.append(f"  {arm.name}: {changed or 'the base'}")
    return "\n".join(lines)


def _of_script(study: ScriptStudy) -> list[str]:
    """Return a line on what is run, and one on early stopping."""
    stops = "no early stopping: steps is not given" if study.steps is None else f"steps of a run: {study.steps}"
    return [f"script: {study.run or study.command}", stops]


def _data(configs: Sequence[RunConfig]) -> list[str]:
    """Return a line per data set: its splits, and where they come from."""
    datasets = {config.dataset.model_dump_json(): config.dataset for config in configs}
    return [line for line in dict.fromkeys(dataset.describe() for dataset in datasets.values()) if line]


def _estimate(study: Study, total: int, configs: Sequence[RunConfig]) -> list[str]:
    """Return lines on epochs and FLOPs, from the closed form of settings spread over the space."""
    from routing.evaluation.compute import expected_flops

    flops: list[float] = []
    refused: InputError | None = None
    for config in configs:
        try:
            flops.append(expected_flops(config))
        except InputError as error:  # some settings of a space do not make a model
            refused = refused or error
    if flops and all(broken_constraint(study, {"flops": value}) is not None for value in flops):
        broken = broken_constraint(study, {"flops": min(flops)})
        assert broken is not None
        raise InputError(
            f"no setting of this study can run: {broken.text} does not hold for any of {len(flops)} settings of the "
            f"space (they cost {min(flops):.6g} to {max(flops):.6g} flops)"
        )
    if refused is not None and not flops:
        raise InputError(f"no setting of this study can run; the first: {refused}")
    lengths = sorted(config.training.num_epochs for config in configs)
    epochs, shown = median(lengths), f"{lengths[0]}" + (f" to {lengths[-1]}" if lengths[-1] > lengths[0] else "")
    lines = [
        f"compute: {min(flops):,.0f} to {max(flops):,.0f} multiply-adds per image, half of the settings below "
        f"{median(flops):,.0f}",
        *_beyond_reference(study, flops),
    ]
    levels = rule_of(study.scheduler, study.objectives).rungs(int(epochs))
    text = f"training: {total} x {shown} epochs"
    if levels:
        expected = total * trained_epochs(study, int(epochs))
        text += f", about {expected:.0f} epochs when {study.scheduler.name} stops trials at {_words(levels)}"
    return [*lines, text]


def trained_epochs(study: Study, epochs: int) -> float:
    """Return how many of its epochs a trial trains on average, when each rung lets its share of them go on."""
    levels = rule_of(study.scheduler, study.objectives).rungs(epochs)
    if not levels:
        return float(epochs)
    share, expected = 1.0, float(levels[0])
    for before, after in itertools.pairwise([*levels, epochs]):
        share /= study.scheduler.reduction_factor
        expected += share * (after - before)
    return expected


def _too_few_settings(study: Study, total: int) -> list[str]:
    """Return a line where a space without ranges has fewer settings than trials are asked for."""
    if not isinstance(study, SweepStudy):
        return []
    space, sizes = space_of(study), []
    for parameter in space.parameters.values():
        low, high = parameter.float_range or (0.0, 0.0)
        if low < high and parameter.step is None:
            return []
        first, last = parameter.int_range or (0, 0)
        sizes.append(max(len(extremes(parameter)), last - first + 1))
    if math.prod(sizes) > _COUNTED:
        return []
    count = len(space.grid(1))
    if count >= total:
        return []
    return [f"warning: the space has {count} settings, fewer than {total} trials: a grid ends there, others repeat"]


def _beyond_reference(study: Study, flops: list[float]) -> list[str]:
    """Return a line where some settings cost more than the reference of the objective ``flops``."""
    reference = next((o.reference for o in study.objectives if o.metric == "flops"), float("inf"))
    run = [value for value in flops if broken_constraint(study, {"flops": value}) is None]
    share = sum(value > reference for value in run) / max(len(run), 1)
    if not share:
        return []
    return [
        f"warning: {share:.0%} of the settings cost more than the reference of flops, {reference:,.0f}, and add "
        "nothing to the hypervolume; raise it above the most expensive setting"
    ]


def run_of(study: Study, plan: Blueprint, values: dict[str, Any]) -> tuple[AnyRun, float] | str:
    """Return the run of a setting and its expected FLOPs, or why it may not run."""
    try:
        config = plan.configure(values)
        if isinstance(config, ScriptRun):  # what it costs is known afterwards
            return config, 0.0
        from routing.evaluation.compute import expected_costs  # imports torch

        costs = expected_costs(config)
    except InputError as error:
        return str(error)
    broken = broken_constraint(study, costs)
    if broken is None:
        return config, costs["flops"]
    return f"{broken.text} does not hold: expected {costs[broken.metric]:.6g}"


def broken_constraint(study: Study, costs: dict[str, float]) -> Constraint | None:
    """Return the first constraint of a study that a run of these expected costs breaks."""
    broken = (one for one in constraints_of(study) if one.metric in costs and not one.holds(costs[one.metric]))
    return next(broken, None)


def check_device(study: Study) -> None:
    """Raise ``InputError`` where a trial would use a GPU without a share of it: Ray places trials by their shares."""
    if study.resources.gpu:
        return
    changed = [arm.changes for arm in declared_arms(study)] if not isinstance(study, SweepStudy) else []
    named = [dotted(nested(keys)).get("device") for keys in (study.base, *changed)]
    if isinstance(study, SweepStudy) and "device" in study.space:
        named += extremes(study.space["device"])
    for device in named:
        if str(device).startswith("cuda"):
            raise InputError(
                f"device '{device}', but resources.gpu is 0; say what share of a GPU a trial takes, as in "
                "resources: {gpu: 0.5}"
            )


def _words(levels: list[int]) -> str:
    return f"epoch{'s' if len(levels) > 1 else ''} {', '.join(map(str, levels))}"


def spread(study: Study) -> list[RunConfig]:
    """Return runs spread evenly over the space, or one per arm."""
    if not isinstance(study, SweepStudy):
        return [arm.config(study, study.seeds[0]) for arm in declared_arms(study)]
    space = space_of(study)
    configs = []
    for index in range(64):
        shares: dict[str, Any] = {
            name: (index * step + 0.5 / 64) % 1.0
            for name, step in zip(space.parameters, _golden_steps(len(space.parameters)), strict=True)
        }
        try:
            configs.append(space.config(space.decide(lambda name, p, shares=shares: at_quantile(p, shares[name]))))  # type: ignore[misc]
        except InputError:
            continue
    return configs


def _golden_steps(count: int) -> list[float]:
    """Return steps whose multiples fill the unit cube evenly (the generalised golden ratio, R sequence)."""
    root = 2.0
    for _ in range(30):
        root = (1 + root) ** (1 / (count + 1))
    return [(1 / root) ** (i + 1) % 1.0 for i in range(count)]
