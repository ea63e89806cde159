"""When trials ran, from the ledger; from a trial's files where the ledger lies elsewhere."""

from __future__ import annotations

import pandas as pd

from analysis.read.journal import open_journal
from analysis.read.results import Results
from routing.files.results_folder import LEDGER_FILE, METRICS_FILE

Span = tuple[float, float]
"""Start and end in seconds since 1970."""


def trial_times(results: Results) -> dict[int, Span]:
    """Return start and end of the ended trials; one of which neither ledger nor files know the time is left out."""
    found = _of_ledger(results)
    trials = results.trials
    seconds = pd.to_numeric(trials["seconds"], errors="coerce") if "seconds" in trials else pd.Series(dtype=float)
    for index, number in trials["number"].items():
        path = results.trial_folder(int(number)) / METRICS_FILE
        took = seconds.get(index, float("nan"))
        if int(number) not in found and path.is_file() and not pd.isna(took):
            end = path.stat().st_mtime
            found[int(number)] = (end - float(took), end)
    return found


def _of_ledger(results: Results) -> dict[int, Span]:
    path = results.folder / LEDGER_FILE
    if not path.is_file():
        return {}
    try:
        trials = open_journal(path)[0].get_trials(deepcopy=False)
    except Exception:  # a damaged ledger: the report names it; times are then those of files
        return {}
    ended = [one for one in trials if one.datetime_start is not None and one.datetime_complete is not None]
    return {
        one.number: (one.datetime_start.timestamp(), one.datetime_complete.timestamp())
        for one in ended
        if one.datetime_start is not None and one.datetime_complete is not None
    }
