"""A report that is written again while its study runs; the page in the browser loads itself again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.report import Analysis, analyze
from routing.files.results_folder import HISTORY_FILE, POINTS_FILE, RUNNING, TRIALS_FILE, TRIALS_FOLDER, WAITING

QUIET_LOOKS = 2
"""Looks without a running or waiting trial after which a study has ended: between two trials there may be none."""


def watch(
    results: Sequence[Path], every: int, say: Callable[[str], None], log: Callable[[Path], object] | None = None
) -> None:
    """Write the reports of running studies, again whenever something has changed, until no trial runs or waits.

    Meanwhile only the quick figures are drawn. The last page, which no longer loads itself, is up to the caller.

    Args:
        every: seconds between two looks, and between two loads of the page.
        log: is given each folder after its report was written, to tell other programs.
        say: is told of each report how far the study is.

    Raises:
        InputError: as ``analyze``.
    """
    before, quiet = "", 0
    while quiet < QUIET_LOOKS:
        now = _state(results)
        if now != before:
            found = analyze(results, refresh=every)
            before = now
            for one in (found, *found.others):
                if log is not None:
                    log(one.folder)
                say(f"{time.strftime('%H:%M:%S')}  {one.progress}  {one.verdict}; report: {one.report}")
        is_running = any(_goes_on(one) for one in (found, *found.others))
        quiet = 0 if is_running else quiet + 1
        time.sleep(every if is_running else min(every, 1))


def _goes_on(found: Analysis) -> bool:
    return bool({RUNNING, WAITING} & {state for state, count in found.states.items() if count})


def _state(results: Sequence[Path]) -> str:
    """Return what changes as a study goes on: its tables and the histories of its trials, by their times."""
    times = []
    for folder in results:
        files = [
            folder / TRIALS_FILE,
            folder / POINTS_FILE,
            *sorted((folder / TRIALS_FOLDER).glob(f"*/{HISTORY_FILE}")),
        ]
        times += [f"{path}:{path.stat().st_mtime_ns}" for path in files if path.exists()]
    return "\n".join(times)
