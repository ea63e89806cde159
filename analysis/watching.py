"""A report that is written again while its study runs; the page in the browser loads itself again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from analysis.report import Analysis, analyze
from routing.files.activity import is_under_way
from routing.files.results_folder import HISTORY_FILE, POINTS_FILE, RUNNING, TRIALS_FILE, TRIALS_FOLDER, WAITING


def watch(
    results: Sequence[Path],
    every: int,
    say: Callable[[str], None],
    logs: Sequence[Callable[[Path], object]] = (),
    out: Path | None = None,
) -> None:
    """Write the reports of running studies, again whenever something has changed, until every driver has ended.

    A driver on another machine counts as ended when no trial runs or waits, or nothing has changed for two minutes.

    Meanwhile only the quick figures are drawn. The last page, which no longer loads itself, is up to the caller.

    Args:
        every: seconds between two looks, and between two loads of the page.
        logs: each is given every folder after its report was written, to tell other programs.
        say: is told of each report how far the study is.
        out: as of ``analyze``.

    Raises:
        InputError: as ``analyze``.
    """
    before: str | None = None
    while True:
        now = _state(results)
        if now != before:
            found = analyze(results, refresh=every, out=out)
            before = now
            for one in (found, *found.others):
                for log in logs:
                    log(one.folder)
                say(f"{time.strftime('%H:%M:%S')}  {one.progress}  {one.verdict}; report: {one.report}")
        if not any(is_under_way(one.folder, partial(_has_unfinished, one)) for one in (found, *found.others)):
            return
        time.sleep(every)


def _has_unfinished(found: Analysis) -> bool:
    return any(found.states.get(state) for state in (RUNNING, WAITING))


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
