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

CURVE_SHARES = (0.15, 0.25, 0.4, 0.55, 0.7, 0.85)
"""Shares of tokens kept along the curve of one block, where no grid is declared."""


def settings_worth_evaluating(reference: Pruning, grid: PruningGridSection, host: Host) -> list[Pruning]:
    """Return the settings of the curve of a model.

    Raises:
        InputError: a setting that the model cannot take, or a grid of which none fits.
    """
    if host.depth < 2:
        return []
    declared = grid != PruningGridSection()
    settings = _declared_grid(reference, grid, host) if declared else _short_curve(reference, host)
    fitting = [p for p in settings if p.schedule or p.selection.num_kept <= host.num_tokens]
    if declared and not fitting:
        raise InputError(
            f"model.pruning.grid: every setting keeps more tokens than the model has ({host.num_tokens}); lower "
            "k_anchors or top_m"
        )
    for pruning in fitting:
        pruning.on(host)
    return fitting


def _short_curve(reference: Pruning, host: Host) -> Iterator[Pruning]:
    """Yield settings over shares of tokens, one fifth of them anchors, from the second and the middle block."""
    if reference.schedule is not None or reference.acting.needs_schedule:
        yield from _schedule_curve(reference, host)
        return
    for start_layer in sorted({1, max(1, host.depth // 2)}):
        for share in CURVE_SHARES:
            first = host.prefix.count
            kept = max(first + 2, round(share * host.num_tokens))
            anchors = max(1, (kept - first) // 5)
            chosen = replace(reference.selection, k_anchors=anchors, top_m=kept - first - anchors)
            yield replace(reference, selection=chosen, start_layer=start_layer)


def _schedule_curve(reference: Pruning, host: Host) -> Iterator[Pruning]:
    """Yield the settings of a schedule at every keep rate that the model and the method can take."""
    reference.on(host)
    for rate in KEEP_RATES:
        with suppress(InputError):  # a small model: too few patches left, or more pairs than can be merged
            yield reference.at_rate(rate, host)


def _declared_grid(reference: Pruning, grid: PruningGridSection, host: Host) -> Iterator[Pruning]:
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
