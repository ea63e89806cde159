"""The findings of a study in a few sentences and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.findings.confirmed import against_baseline, confirmed_row, reached
from analysis.findings.dense_match import dense_matches
from analysis.findings.families import ownership
from analysis.findings.summary import Summary
from analysis.read.objectives import metrics
from analysis.words.words import name, scale, shown, state_in_words, who
from routing.claim import claim_of
from routing.config.names import FULL_COMPUTE
from routing.files.results_folder import WARM_START
from routing.objectives import Objective
from routing.quantities import MULTIPLY_ADDS, find, heading


@dataclass(frozen=True)
class KeyNumber:
    """One number at the top of the page: its label, its value, and a note that explains it."""

    label: str
    value: str
    note: str


def cards(summary: Summary) -> list[KeyNumber]:
    """Return the numbers at the top: the claim against full_compute (else the hypervolume), the best, the knee."""
    objectives, found = summary.results.objectives, []
    match = _as_good_as_full(summary)
    if match is not None:
        ours, full = (" at ".join(_value(o, row) for o in objectives) for row in (match.row, match.full))
        note = f"{ours} (trial {int(match.row['trial'])}) against {full}"
        found.append(KeyNumber(f"Within 1 point of {FULL_COMPUTE}", f"{match.share:.0%} of its compute", note))
    for label, row in (("Best", summary.best_row), ("Knee: more cost pays less beyond", summary.knee_row)):
        if row is not None:
            first, *rest = (_value(o, row) for o in objectives)
            found.append(KeyNumber(label, first, "; ".join([*rest, who(row.to_dict())])))
    if match is None:
        found.append(
            KeyNumber("Hypervolume", f"{summary.hypervolume:.4g}", f"{summary.scale}; against {_reference(summary)}")
        )
    return found


def progress(summary: Summary, with_volume: bool = True) -> str:
    """Return how many trials are in which state, and the hypervolume reached."""
    states = [f"{count} {state_in_words(state)}" for state, count in summary.states.items()]
    taken_over = int(summary.results.warm_started.sum())
    states += [f"{taken_over} {state_in_words(WARM_START)}"] if taken_over else []
    volume = ""
    if with_volume and len(summary.front):
        volume = f" Hypervolume {summary.hypervolume:.4g} ({summary.scale}; against {_reference(summary)})."
    return f"Trials: {', '.join(states) or 'none has begun'}.{volume}"


def headline(summary: Summary, answers: Sequence[str] = (), confirmed: pd.DataFrame | None = None) -> list[str]:
    """Return what the numbers at the top do not say, as sentences; the answers of an ablation first.

    Args:
        confirmed: confirm.csv, where the study has been confirmed.
    """
    best, knee = summary.best_row, summary.knee_row
    if best is None or knee is None:
        why = summary.why_no_front
        return [f"{why[:1].upper()}{why[1:]}: there is no front yet.", progress(summary)]
    lines = [*answers]
    match = _as_good_as_full(summary)
    lines += [*_against_dense(summary), *ownership(summary)]
    if summary.hypervolume == 0:
        lines.append(
            f"The hypervolume is 0: no point is better than the study's reference ({_reference(summary)}) in both. "
            "Train longer, or set a reference just above chance accuracy and above the cost of every model: only "
            "points better than the reference guide the search."
        )
    picked = {"the best point": best, "the knee": knee}
    if match is not None:
        picked["the cheapest within 1 point of full_compute"] = match.row
    return [*lines, _confirmation(picked, summary, confirmed), progress(summary, with_volume=match is not None)]


def _against_dense(summary: Summary) -> list[str]:
    """Return what the cheapest dense nets as good as the conditional models cost; nothing without both kinds."""
    found, objectives = dense_matches(summary), summary.results.objectives
    if found is None:
        return []
    is_best = summary.best_row is not None and found.best_row.name == summary.best_row.name
    best = (
        "The best point is conditional; "
        if is_best
        else (f"The best conditional point is {_point(found.best_row, objectives)}; ")
    )
    if found.best is None:
        lines = [best + "no dense net of this study is as good."]
    else:
        quotient, dense = 1 / found.best.share, _point(found.best.dense, objectives)
        lines = [best + f"the cheapest dense net as good costs {quotient:.2g} times that: {dense}."]
    if found.saving is not None:
        row, dense = (_point(point, objectives) for point in (found.saving.row, found.saving.dense))
        share = f"{found.saving.share:.0%}"
        lines.append(f"The largest saving: {row} needs {share} of the cheapest dense net as good, {dense}.")
    elif found.best is not None:
        lines.append("No conditional point costs less than the cheapest dense net as good.")
    return lines


def _confirmation(picked: dict[str, pd.Series], summary: Summary, confirmed: pd.DataFrame | None) -> str:
    """Return what the picked points reach under fresh seeds, or that they have not been confirmed."""
    parts = []
    for what, point in picked.items():
        found = None if confirmed is None else confirmed_row(confirmed, point)
        words = "" if found is None or confirmed is None else against_baseline(found, confirmed, summary.results)
        words = words or ("" if found is None else reached(found, summary.results))
        parts += [f"{what}: {words}"] if words else []
    if parts:
        return f"Trained again and read on the test split once: {'; '.join(parts)}."
    return (
        "Points of the front are validation values of the best of many trials, one seed each, and so are optimistic: "
        "routing confirm trains the front again under fresh seeds and reads the test split once."
    )


def verdict(summary: Summary, confirmed: pd.DataFrame | None = None) -> str:
    """Return the study's result in one line: against the best full_compute where there is one, else the best point."""
    best, objectives = summary.best_row, summary.results.objectives
    if best is None:
        return summary.why_no_front
    match = _as_good_as_full(summary)
    if match is None:
        return f"best {_point(best, objectives)}"
    found = None if confirmed is None else confirmed_row(confirmed, match.row)
    said = "" if found is None or confirmed is None else against_baseline(found, confirmed, summary.results)
    if said:
        return f"{said} ({who(match.row.to_dict())})"
    value, full = (_value(objectives[0], row) for row in (match.row, match.full))
    return f"{value} against {full} of full_compute at {match.share:.0%} of its compute ({who(match.row.to_dict())})"


def chart_label(summary: Summary) -> str:
    """Return a description of the chart for screen readers."""
    if summary.front.empty:
        return f"Chart of all operating points without a front: {summary.why_no_front}."
    objectives = summary.results.objectives
    first, last = summary.front.iloc[0], summary.front.iloc[-1]
    return (
        f"Chart of {len(summary.results.points)} operating points. The front has {len(summary.front)} points, from "
        f"{_point(first, objectives)} to {_point(last, objectives)}. The table below holds its values."
    )


@dataclass(frozen=True)
class _Match:
    """The cheapest point of the front that is as good as the best full_compute; ``share`` is of its FLOPs."""

    row: pd.Series
    full: pd.Series
    share: float


def _as_good_as_full(summary: Summary) -> _Match | None:
    """Return the cheapest point of the front within one percentage point of full_compute; None without either."""
    baselines, objectives = summary.baselines, summary.results.objectives
    metric = next((o.metric for o in objectives if o.goal == "maximize" and scale(o.metric) == 100), None)
    if metric is None or summary.front.empty or baselines.empty or "flops" not in baselines:
        return None
    rows = pd.concat([summary.front, baselines[baselines["model.name"] == FULL_COMPUTE]])
    rows = rows[rows[[metric, "flops"]].notna().all(axis=1)]
    found = claim_of(rows["model.name"].tolist(), rows[metric].tolist(), rows["flops"].tolist())
    return None if found is None else _Match(rows.iloc[found.point], rows.iloc[found.dense], found.share)


def _value(objective: Objective, row: pd.Series) -> str:
    """Return a value with its unit, and with its name where it has none: ``95.80 %``, ``944 k multiply-adds``."""
    text = shown(objective.metric, row[objective.metric])
    if scale(objective.metric) == 100:
        return text
    known = find(objective.metric)
    is_compute = known is not None and known.unit == MULTIPLY_ADDS
    return f"{text} {heading(objective.metric) if is_compute else name(objective.metric)}"


def _point(row: pd.Series, objectives: tuple[Objective, ...]) -> str:
    return f"{' at '.join(_value(o, row) for o in objectives)} ({who(row.to_dict())})"


def _reference(summary: Summary) -> str:
    values = metrics(summary.reference, summary.results.objectives)
    return ", ".join(
        f"{name(o.metric)} {shown(o.metric, v)}" for o, v in zip(summary.results.objectives, values, strict=True)
    )
