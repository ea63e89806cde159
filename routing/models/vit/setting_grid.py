"""Settings of token reduction worth evaluating: those of a declared grid, or a short curve of keep rates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from routing.errors import InputError
from routing.models.vit.host import Host
from routing.models.vit.schedule import Schedule
from routing.models.vit.section import PruningGridSection
from routing.models.vit.setting import Pruning

KEEP_RATES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Keep rates of the curve of a schedule, where no grid is declared."""


def schedule_curve(reference: Pruning, host: Host) -> Iterator[Pruning]:
    """Yield the settings of a schedule at every keep rate that the model and the method can take."""
    reference.on(host)
    for rate in KEEP_RATES:
        with suppress(InputError):  # a small model: too few patches left, or more pairs than can be merged
            yield reference.at_rate(rate, host)


def declared_grid(reference: Pruning, grid: PruningGridSection, host: Host) -> Iterator[Pruning]:
    """Yield every combination of a declared grid, the outermost the block, so that neighbours share blocks."""
    chosen = reference.selection
    schedules: list[Schedule | None] = [Schedule.of(each) for each in grid.schedule] or [reference.schedule]
    for schedule, start_layer, k_anchors, top_m, alpha in itertools.product(
        schedules,
        grid.start_layer or (reference.start_layer,),
        grid.k_anchors or (chosen.k_anchors,),
        grid.top_m or (chosen.top_m,),
        grid.alpha or (chosen.alpha,),
    ):
        selection = replace(chosen, k_anchors=k_anchors, top_m=top_m, alpha=alpha)
        setting = replace(reference, selection=selection, start_layer=start_layer, schedule=schedule)
        if not grid.keep_rate:
            yield setting
        for rate in grid.keep_rate:
            try:
                found = setting.at_rate(rate, host)
            except InputError as error:
                raise InputError(f"model.pruning.grid.keep_rate: {error}") from None
            if found.schedule is None or found.steps(host):  # else none, which is evaluated in any case
                yield found
