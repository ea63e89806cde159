"""Ablations: every arm against the baseline, paired by seed, with intervals and a correction for many comparisons."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.read.objectives import losses, measured
from analysis.read.results import Results
from analysis.words.tables import Column, Table, table
from analysis.words.words import arm_in_words, axis_label, count, name, scale
from routing.files.results_folder import ARM, BASELINE_ARM, COMPLETE
from routing.intervals import mean_interval
from routing.objectives import Objective
from routing.pareto import loss_matrix
from routing.quantities import interval_of

MIN_SEEDS = 5
SIGNIFICANT = 0.05
_FIRST = ("better", "no clear difference", "worse")


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p values (k,) corrected for k comparisons; NaN entries are no comparison and stay NaN.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    values = np.asarray(p_values, dtype=float)
    corrected = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def dominance_probability(first: ArrayLike, second: ArrayLike) -> tuple[float, float]:
    """Return how often a run of ``first`` dominates one of ``second``, and the reverse; all pairs count.

    Args:
        first: loss vectors (n, M), a row per seed of one configuration.
        second: loss vectors (m, M) of the other.

    Raises:
        ValueError: a configuration without runs, NaN, or different numbers of objectives.
    """
    a, b = loss_matrix(first), loss_matrix(second)
    if not len(a) or not len(b) or a.shape[1] != b.shape[1]:
        raise ValueError(f"needs runs of both configurations with equal objectives, not {a.shape} and {b.shape}")
    left, right = a[:, None, :], b[None, :, :]
    wins = np.all(left <= right, axis=2) & np.any(left < right, axis=2)
    defeats = np.all(right <= left, axis=2) & np.any(right < left, axis=2)
    return float(wins.mean()), float(defeats.mean())


def paired_difference(arm: pd.Series, baseline: pd.Series) -> dict[str, float]:
    """Return arm minus baseline over the seeds both have (series indexed by seed).

    Keys: ``pairs``, ``diff`` with ``diff_low`` and ``diff_high`` (95 %, Student's t), ``p`` (paired t test, two-sided)
    and ``effect`` (Cohen's d_z: mean difference / its standard deviation). ``p`` and ``effect`` are NaN without
    spread; runs that are all equal have p = 1.
    """
    seeds = arm.index.intersection(baseline.index)
    differences = (arm.loc[seeds] - baseline.loc[seeds]).to_numpy(dtype=float)
    mean, low, high = mean_interval(differences)
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else math.nan
    if len(differences) > 1 and not differences.any():
        p, effect = 1.0, 0.0
    elif spread > 0:
        with warnings.catch_warnings():  # scipy warns of nearly equal differences; the interval shows them
            warnings.simplefilter("ignore", RuntimeWarning)
            p, effect = float(stats.ttest_1samp(differences, 0.0).pvalue), mean / spread
    else:
        p, effect = math.nan, math.nan
    return {"pairs": len(seeds), "diff": mean, "diff_low": low, "diff_high": high, "p": p, "effect": effect}


def baseline_arm(results: Results) -> str:
    """Return the arm that the others are compared with: the first one declared where the design is ``arms``.

    The arms of a confirmation, trials of another study, have no baseline among them.
    """
    factors = results.study.get("factors")
    if results.study.get("design") != "arms" or not isinstance(factors, dict) or list(factors) == ["trial"]:
        return BASELINE_ARM
    return next(
        (str(level) for levels in factors.values() if isinstance(levels, dict) for level in levels), BASELINE_ARM
    )


def arm_runs(results: Results) -> pd.DataFrame:
    """Return the finished runs of an ablation: one row per arm and seed, the later trial where one ran twice."""
    trials = results.trials
    if ARM not in trials:
        return trials.iloc[:0].assign(arm=pd.Series(dtype=object))
    done = trials[(trials["state"] == COMPLETE) & measured(trials, results.objectives) & trials[ARM].notna()]
    return done.drop_duplicates([ARM, "seed"], keep="last")


def compare_arms(results: Results) -> pd.DataFrame:
    """Return one row per arm, in the order of the study: n, every objective's mean and interval, paired differences.

    Columns: ``arm``, ``is_baseline``, ``n``; for each objective ``m``: ``m_mean``, ``m_low``, ``m_high``, ``m_median``,
    ``m_diff``, ``m_diff_low``, ``m_diff_high``, ``m_p``, ``m_p_holm``, ``m_effect``; ``pairs``; ``dominates`` and
    ``dominated`` (share of run pairs against the baseline); ``verdict`` on the first objective.
    """
    runs = arm_runs(results)
    arms, name_of_baseline = list(dict.fromkeys(runs[ARM])), baseline_arm(results)
    baseline = runs[runs[ARM] == name_of_baseline]
    rows = [_arm_row(runs[runs[ARM] == arm], baseline, results.objectives) for arm in arms]
    compared = pd.DataFrame(rows)
    if compared.empty:
        return compared
    compared.insert(1, "is_baseline", compared[ARM] == name_of_baseline)
    for objective in results.objectives:
        p = compared[f"{objective.metric}_p"].where(~compared["is_baseline"])
        compared[f"{objective.metric}_p_holm"] = holm(p)
    compared["verdict"] = [_verdict(row, results.objectives[0]) for _, row in compared.iterrows()]
    return compared


def _arm_row(runs: pd.DataFrame, baseline: pd.DataFrame, objectives: tuple[Objective, ...]) -> dict[str, object]:
    row: dict[str, object] = {ARM: runs[ARM].iloc[0], "n": len(runs), "pairs": 0}
    for objective in objectives:
        metric = objective.metric
        values = runs.set_index("seed")[metric].astype(float)
        interval = interval_of(metric, values)
        row |= {f"{metric}_{name}": value for name, value in interval._asdict().items()}
        row[f"{metric}_median"] = float(values.median())
        paired = paired_difference(values, baseline.set_index("seed")[metric].astype(float))
        row["pairs"] = paired.pop("pairs")
        row |= {f"{metric}_{name}": value for name, value in paired.items()}
    row["dominates"], row["dominated"] = (
        dominance_probability(losses(runs, objectives), losses(baseline, objectives))
        if len(baseline)
        else (math.nan, math.nan)
    )
    return row


def _verdict(row: pd.Series, objective: Objective) -> str:
    """Return the verdict on an arm by the first objective."""
    metric, few = objective.metric, "too few seeds for a claim ({} of {})"
    if row["is_baseline"]:
        return "baseline" if row["n"] >= MIN_SEEDS else f"baseline; {few.format(int(row['n']), MIN_SEEDS)}"
    if not row["pairs"]:
        return "no baseline under the same seeds"
    if row["pairs"] < MIN_SEEDS:
        return few.format(int(row["pairs"]), MIN_SEEDS)
    p = row[f"{metric}_p_holm"]
    if not p < SIGNIFICANT:
        return "no clear difference"
    return "better" if row[f"{metric}_diff"] * objective.sign < 0 else "worse"


def ablation_table(compared: pd.DataFrame, results: Results) -> Table:
    """Return the comparison as text: per arm the task metric, its paired difference with the verdict, and the cost."""
    task, *costs = results.objectives
    baseline = baseline_arm(results)
    against = "the baseline" if baseline == BASELINE_ARM else arm_in_words(baseline)
    over_splits = bool(results.study.get("split_by_seed"))  # a field that reports the median of repeated splits
    headings = [Column(ARM, wrap=True), Column("n", True), Column(axis_label(task.metric), True)]
    headings += [Column("median", True)] * over_splits
    headings += [Column("difference [95 %]", True), Column("p (Holm)", True), Column("effect d_z", True)]
    headings += [Column("verdict", wrap=True)]
    headings += [Column(f"{axis_label(cost.metric)} [95 %]", True) for cost in costs]
    headings += [Column("dominates / dominated", True)]
    rows = []
    for _, row in compared.iterrows():
        paired = [
            _difference(row, task.metric),
            _p(row[f"{task.metric}_p_holm"]),
            _number(row[f"{task.metric}_effect"]),
        ]
        alone = row["is_baseline"] or not row["pairs"]
        cells = [arm_in_words(row[ARM]), str(int(row["n"])), _interval(row, task.metric)]
        cells += [_format(task.metric, row[f"{task.metric}_median"])] * over_splits
        cells += ["", "", ""] if alone else paired
        cells += [str(row["verdict"]), *(_interval(row, cost.metric) for cost in costs)]
        cells.append("" if alone else f"{row['dominates']:.0%} / {row['dominated']:.0%}")
        rows.append(cells)
    note = (
        f"n: finished seeds{', each with its own cut of the data' if over_splits else ''}. "
        f"Difference: arm minus {against}, paired by seed, with its 95 % interval (Student's t). "
        "p: paired t test, Holm-corrected over the arms. d_z: mean difference / its standard deviation. Dominates: "
        f"share of pairs of runs in which the arm beats {against} in every objective. Fewer than {MIN_SEEDS} common "
        "seeds allow no claim."
    )
    return table(f"{results.name}: every arm against {against}", headings, rows, note)


def answers(compared: pd.DataFrame, objectives: tuple[Objective, ...]) -> list[str]:
    """Return the findings of an ablation as sentences: the baseline, then the arms by verdict, with their cost."""
    task, *costs = objectives
    if compared.empty or not compared["is_baseline"].any():
        return []
    baseline = compared[compared["is_baseline"]].iloc[0]
    cost = next((cost.metric for cost in costs if cost.metric == "flops"), None)
    at = "" if cost is None else f" at {count(baseline[f'{cost}_mean'])} multiply-adds"
    unit = " %" if scale(task.metric) == 100 else ""
    value = _format(task.metric, baseline[f"{task.metric}_mean"])
    subject = "The baseline" if baseline[ARM] == BASELINE_ARM else f"The baseline ({arm_in_words(baseline[ARM])})"
    seeds = "one seed" if baseline["n"] == 1 else f"mean of {int(baseline['n'])} seeds"
    lines = [f"{subject} reaches {value}{unit} {name(task.metric)}{at}, {seeds}."]
    others = compared[~compared["is_baseline"]]
    for verdict in dict.fromkeys([*_FIRST, *others["verdict"]]):
        arms = []
        for _, row in others[others["verdict"] == verdict].iterrows():
            words = [_format(task.metric, row[f"{task.metric}_diff"], signed=True) + (" points" if unit else "")]
            if cost is not None:
                words.append(f"at {row[f'{cost}_mean'] / baseline[f'{cost}_mean']:.0%} of its compute")
            arms.append(f"{arm_in_words(row[ARM])} ({' '.join(words) if row['pairs'] else 'not compared'})")
        if arms:
            lines.append(f"{verdict.capitalize()}: {', '.join(arms)}.")
    return lines


def _format(metric: str, value: float, signed: bool = False) -> str:
    if metric in ("flops", "params"):
        return count(value)
    sign = "+" if signed else ""
    return f"{value * scale(metric):{sign}.2f}" if scale(metric) == 100 else f"{value:{sign}.4g}"


def _interval(row: pd.Series, metric: str) -> str:
    mean = _format(metric, row[f"{metric}_mean"])
    if math.isnan(row[f"{metric}_low"]):
        return mean
    return f"{mean} [{_format(metric, row[f'{metric}_low'])}, {_format(metric, row[f'{metric}_high'])}]"


def _difference(row: pd.Series, metric: str) -> str:
    text = _format(metric, row[f"{metric}_diff"], signed=True)
    if math.isnan(row[f"{metric}_diff_low"]):
        return text
    low, high = (_format(metric, row[f"{metric}_diff_{end}"], signed=True) for end in ("low", "high"))
    return f"{text} [{low}, {high}]"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.2f}"
