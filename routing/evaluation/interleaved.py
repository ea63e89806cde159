"""Timing side by side: every alternative once per round, in rotating order, so that all meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def interleaved(
    alternatives: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every alternative once per round.

    Args:
        alternatives: name -> what to run; on a GPU the device is waited for.
        rounds: timed rounds; the order rotates from round to round.
        clock: says the seconds.

    Returns:
        Seconds per alternative and round.
    """
    names = list(alternatives)
    for _ in range(warmup):
        for name in names:
            alternatives[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            _wait()
            started = clock()
            alternatives[name]()
            _wait()
            seconds[name].append(clock() - started)
    return seconds


def _wait() -> None:
    for index in range(torch.cuda.device_count()):
        torch.cuda.synchronize(index)
