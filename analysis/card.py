"""The card of an exported model: what it is, how good, how dear, and how to get it again."""

from __future__ import annotations

import pandas as pd

from analysis.summary import Summary
from analysis.words import axis_label, shown
from routing.config import RunConfig
from routing.record import CONFIG_FILE, MODEL_FILE


def card(summary: Summary, pick: str, row: pd.Series, config: RunConfig, *, has_model: bool) -> str:
    """Return card.md of one exported point."""
    results = summary.results
    facts = [("data", config.dataset.name), ("model", config.model.name), ("trial", str(int(row["trial"])))]
    facts += [(axis_label(o.metric), shown(o.metric, row[o.metric])) for o in results.objectives]
    facts += [(axis_label(key), shown(key, row.get(key))) for key in ("params", "routing_ratio")]
    table = "\n".join(f"| {name} | {value} |" for name, value in facts if value)
    weights = (
        f"`{MODEL_FILE}` holds its weights."
        if has_model
        else f"The sweep did not keep its weights; `routing train --config {CONFIG_FILE}` makes them again."
    )
    return (
        f"# {config.model.name} on {config.dataset.name}: {pick} of {results.name}\n\n"
        f"| what | value |\n|---|---|\n{table}\n\n"
        "Compute is multiply-adds per image (one multiply-add counts as 1), the mean of what was executed over the "
        "validation images.\n\n"
        f"{weights} `routing train --config {CONFIG_FILE}` trains the same model again and reports the same validation "
        "value on the same machine and thread count.\n"
    )
