"""The cost of a study, and the share that early stopping has saved."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.read.results import Results
from analysis.words.tables import Column, Table, table
from routing.commands.console import duration
from routing.files.results_folder import PRUNED

NOTE = "Trials that ended, in any state; attempts that were interrupted are not counted."


def cost_table(results: Results) -> Table:
    """Return the time of all trials, of CPUs and GPUs, and the time that stopped trials did not take."""
    trials = results.trials[~results.warm_started]
    seconds = _numbers(trials, "seconds")
    rows = [["time of all trials together", duration(seconds.sum())]]
    cpu = _numbers(trials, "cpu_seconds").sum()
    rows += [["CPU time", duration(cpu)]] if cpu else []
    share = _gpu_share(results.study.get("resources"))
    rows += [[f"GPU time, {share:g} of one per trial", duration(share * seconds.sum())]] if share else []
    epochs, saved = _saved(trials, seconds)
    if epochs:
        rows.append(["saved by early stopping", f"{epochs:.0f} epochs, about {duration(saved)}"])
    return table("What the study has cost", ["what", Column("cost", True)], rows, NOTE)


def _saved(trials: pd.DataFrame, seconds: pd.Series) -> tuple[float, float]:
    """Return the epochs that stopped trials did not train, and the seconds at the pace of each."""
    trained = _numbers(trials, "epochs")
    left = (_numbers(trials, "training.num_epochs") - trained).clip(lower=0)
    stopped = (trials["state"] == PRUNED) & (trained > 0)
    return float(left[stopped].sum()), float((left * seconds / trained)[stopped].sum())


def _gpu_share(resources: Any) -> float:
    share = resources.get("gpu", 0) if isinstance(resources, dict) else 0
    return float(share) if isinstance(share, (int, float)) else 0.0


def _numbers(table: pd.DataFrame, column: str) -> pd.Series:
    values = table[column] if column in table else pd.Series(None, index=table.index, dtype=object)
    return pd.to_numeric(values, errors="coerce").fillna(0.0)
