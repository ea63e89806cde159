"""``front.tex``: the front as a table of five columns for a paper."""

from __future__ import annotations

import math

import pandas as pd

from analysis.findings.baselines import is_baseline
from analysis.findings.confirmed import on_test_split
from analysis.findings.summary import Summary
from analysis.words.tables import Column, Table, table
from analysis.words.words import name, plain, scale
from routing.config.names import FULL_COMPUTE
from routing.files.results_folder import HIGH, LOW, MEAN
from routing.intervals import FEWEST
from routing.quantities import find


def front_tex(summary: Summary, confirmed: pd.DataFrame) -> Table | None:
    """Return model, router, millions of multiply-adds, value with its interval, and share of full_compute's cost.

    The rows of confirm.csv, where the study was confirmed, and else the front with the best full_compute; None without
    a front, without multiply-adds, or where no confirmed point has both means.
    """
    if summary.front.empty or "flops" not in summary.front:
        return None
    task = summary.results.objectives[0].metric
    metric = on_test_split(task)
    is_confirmed = f"{metric}{MEAN}" in confirmed and f"flops{MEAN}" in confirmed
    full = _full_cost(summary)
    rows = _confirmed(confirmed, metric) if is_confirmed else _selected(summary, task)
    if rows.empty:
        return None
    rows = rows.assign(share=100 * rows["flops"] / full if full else math.nan).sort_values("flops", kind="stable")
    cells = [
        [
            plain(row["model"]),
            plain(row["router"]) or "--",
            f"{row['flops'] / 1e6:.3f}",
            row["value"],
            "" if math.isnan(row["share"]) else f"{row['share']:.0f}",
        ]
        for _, row in rows.iterrows()
    ]
    shown = metric if is_confirmed else task
    known = find(shown)
    unit = f" ({known.unit})" if known is not None and known.unit else ""
    headings = [
        Column("model"),
        Column("router"),
        Column("M multiply-adds", True),
        Column(f"{name(shown)}{unit}", True),
    ]
    caption = f"The front of {plain(summary.results.name)}. Compute is multiply-adds per image. "
    if is_confirmed:
        n = int(pd.to_numeric(confirmed["n"], errors="coerce").max())
        caption += f"Mean over {n} fresh seeds on the test split"
        caption += ", ± half the 95 % interval." if n >= FEWEST else ", ± half the range."
    else:
        caption += "Validation values of the best of many trials, one seed each: not confirmed."
    return table(caption, [*headings, Column("% of full", True)], cells)


def _full(summary: Summary) -> pd.DataFrame:
    """Return the best full_compute, no row without one."""
    baselines = summary.baselines
    return baselines[baselines["model.name"] == FULL_COMPUTE] if "model.name" in baselines else baselines[:0]


def _full_cost(summary: Summary) -> float | None:
    full = _full(summary)
    return float(full["flops"].iloc[0]) if len(full) else None


def _confirmed(confirmed: pd.DataFrame, metric: str) -> pd.DataFrame:
    rows = []
    for _, row in confirmed.dropna(subset=[f"{metric}{MEAN}", f"flops{MEAN}"]).iterrows():
        mean, low, high = (float(row[f"{metric}{end}"]) * scale(metric) for end in (MEAN, LOW, HIGH))
        around = "" if math.isnan(high - low) or high == low else f" ± {(high - low) / 2:.2f}"
        rows.append(_row(row, float(row[f"flops{MEAN}"]), f"{mean:.2f}{around}"))
    return pd.DataFrame(rows)


def _selected(summary: Summary, task: str) -> pd.DataFrame:
    full = _full(summary)
    points = pd.concat([summary.front, full[~full.index.isin(summary.front.index)]])
    known = find(task)
    texts = [known.shown(float(value)) if known is not None else f"{value:.4g}" for value in points[task]]
    return pd.DataFrame(
        [_row(row, float(row["flops"]), text) for (_, row), text in zip(points.iterrows(), texts, strict=True)]
    )


def _row(row: pd.Series, flops: float, value: str) -> dict[str, object]:
    mode = row.get("model.router.mode")
    has_router = isinstance(mode, str) and not bool(is_baseline(row.to_frame().T).iloc[0])
    model = row.get("model.name")
    return {
        "model": model if isinstance(model, str) else f"trial {int(row['trial'])}",
        "router": mode if has_router else "",
        "flops": flops,
        "value": value,
    }
