"""Router certificates of the models on the front: does a router pick the patches that matter?"""

from __future__ import annotations

import math
from typing import Any

from analysis.findings.summary import Summary
from analysis.words.tables import Column, Table, table
from analysis.words.words import axis_label
from routing.errors import InputError
from routing.files.record import read_metrics

WORDS = {
    "healthy": "picks better than chance",
    "all_on": "collapsed: routes everything",
    "all_off": "collapsed: routes nothing",
    "anti": "picks the wrong patches: worse than chance",
    "weak": "picks no better than chance, or closes less than 3/4 of the gap",
}
NUMBERS = (
    "rate",
    "gap_closed",
    "recall",
    "gap_closed_oracle",
    "share_all_on",
    "share_all_off",
    "saturation",
    "grad_norm_scores",
    "grad_norm_threshold",
)
NOTE = (
    "A router may hit its budget exactly and still pick useless patches. Gap closed: (routed - random) / (full - "
    "random) at the same number of patches; 1 is as good as full compute, 0 no better than random patches. 'oracle' "
    "replaces full compute by the patches that hold the object, where the data knows them; recall is the share of the "
    "object that is routed. Shares are of validation images with every or no patch on the big branch."
)


def certificate_table(summary: Summary) -> Table:
    """Return the certificates of the trials on the front; models without a router have none."""
    rows = []
    for number in dict.fromkeys(summary.front["trial"]):
        certificate = _certificate(summary, int(number))
        if certificate is None:
            continue
        state = str(certificate.get("state", ""))
        mode = summary.front.loc[summary.front["trial"] == number].iloc[0].get("model.router.mode")
        rows.append(
            [str(number), str(mode or ""), f"{state}: {WORDS[state]}" if state in WORDS else state]
            + [_number(certificate.get(name)) for name in NUMBERS]
        )
    headings = [Column("trial", True), Column("router"), Column("state", wrap=True)]
    headings += [Column(axis_label(name), True) for name in NUMBERS]
    return table("Router certificates of the trials on the front", headings, rows, _counts(summary) + NOTE)


def _certificate(summary: Summary, number: int) -> dict[str, Any] | None:
    try:
        found = read_metrics(summary.results.trial_folder(number)).get("certificate")
    except InputError:  # named among the problems of the folder already
        return None
    return found if isinstance(found, dict) else None


def _counts(summary: Summary) -> str:
    """Return how many routers of all trials are in which state."""
    trials = summary.results.trials
    if "router_state" not in trials:
        return ""
    states = trials["router_state"].dropna().value_counts()
    return "All routers: " + ", ".join(f"{n} {state}" for state, n in states.items()) + ". " if len(states) else ""


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) and not math.isnan(value) else ""
