"""How long a study would take on this machine: a few steps of its cheapest, a middle and its most expensive setting."""

from __future__ import annotations

from statistics import mean

import numpy as np

from routing.commands.console import duration
from routing.config.run import RunConfig
from routing.errors import InputError, RoutingError
from search_spaces.on_ray.session import local_concurrency
from search_spaces.plan import spread, trained_epochs
from search_spaces.study.ablation import planned_trials
from search_spaces.study.schema import Study
from search_spaces.study.script import ScriptStudy


def how_long(study: Study, trials: int | None = None, concurrency: int | None = None) -> str:
    """Return one line: the time of the study, and of one trial of each of three settings; or why it is not known.

    The settings in between are taken to cost time as they cost multiply-adds: a trial by linear interpolation.
    """
    from routing.commands.timing import time_run

    if isinstance(study, ScriptStudy):
        return "time: not measured: what a script takes is known once it has run"

    try:
        slots = local_concurrency(study.resources, concurrency)
        by_cost = _by_cost(study)
        picked = [by_cost[0], by_cost[len(by_cost) // 2], by_cost[-1]]
        times = [time_run(config) for _, config in picked]
    except RoutingError as error:
        return f"time: not measured: {error}"
    known = np.array([flops for flops, _ in picked])
    epoch, after = (
        np.interp([flops for flops, _ in by_cost], known, values)
        for values in ([t.epoch for t in times], [t.after for t in times])
    )
    lengths = [trained_epochs(study, config.training.num_epochs) for _, config in by_cost]
    each = mean(float(n * e + a) for n, e, a in zip(lengths, epoch, after, strict=True))
    whole = [duration(t.of(config.training.num_epochs)) for t, (_, config) in zip(times, picked, strict=True)]
    total = planned_trials(study, trials) * each / slots
    return (
        f"time: about {duration(total)} on this machine, {slots} trials at once (measured now: a whole trial of the "
        f"cheapest setting takes {whole[0]}, of a middle one {whole[1]}, of the most expensive {whole[2]})"
    )


def _by_cost(study: Study) -> list[tuple[float, RunConfig]]:
    """Return settings spread over the space with their expected multiply-adds, the cheapest first."""
    from routing.evaluation.compute import expected_flops

    found: list[tuple[float, RunConfig]] = []
    refused: InputError | None = None
    for config in spread(study):
        try:
            found.append((expected_flops(config), config))
        except InputError as error:
            refused = error
    if not found:
        raise refused or InputError("the study has no setting")
    return sorted(found, key=lambda one: one[0])
