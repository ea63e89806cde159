"""confirm.csv: what the points of a front reach under fresh seeds, and how far that is from the dense baseline."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from routing.config.names import FULL_COMPUTE, is_baseline
from routing.files.atomic import write_json
from routing.files.results_folder import (
    ARM,
    BASELINE,
    CONFIRM_FILE,
    DIFFERENCE,
    HIGH,
    HYPERVOLUME_FILE,
    LOW,
    MEAN,
    OF_BASELINE,
    ON_FRONT,
    OPERATING_POINT,
    PAIRS,
    SELECTED,
    TEST_FILE,
    VIOLATES,
    WINNERS_CURSE,
    trial_folder,
)
from routing.intervals import bounded_interval
from routing.membership import Repeats, membership
from routing.objectives import Objective, losses_of, reference_of, scales_in_words
from routing.quantities import find, interval_of, on_split, split_of
from search_spaces.ledger.tables import write_table

CORRECT = "correct"
"""In confirm_test.json: per operating point the images it is right about, as base64 of their bits."""


def pack(correct: NDArray[np.bool_] | None) -> str | None:
    """Return truth values (N,) as base64 of their bits, the number of unused ones first; None of None."""
    if correct is None:
        return None
    return f"{-len(correct) % 8}:{base64.b64encode(np.packbits(correct).tobytes()).decode()}"


def unpack(text: str | None) -> NDArray[np.bool_] | None:
    """Return what ``pack`` was given."""
    if text is None:
        return None
    unused, _, bits = text.partition(":")
    values = np.unpackbits(np.frombuffer(base64.b64decode(bits), dtype=np.uint8)).astype(bool)
    return values[: len(values) - int(unused)]


def baseline_of(points: pd.DataFrame, objectives: Sequence[Objective]) -> pd.Series | None:
    """Return the point that a front is confirmed against: the best full_compute, else the best dense one.

    That is the one the headline names. None where the study trained no dense model.

    Args:
        points: points.csv of the study; those that break a constraint are none of its results.
    """
    if VIOLATES in points:
        points = points[points[VIOLATES].fillna("") == ""]
    if points.empty or "model.name" not in points:
        return None
    dense = points[points["model.name"] == FULL_COMPUTE]
    if dense.empty:
        dense = points[points["model.name"].map(is_baseline)]
    dense = dense.dropna(subset=[objective.metric for objective in objectives])
    if dense.empty:
        return None
    order = pd.DataFrame({o.metric: o.sign * dense[o.metric].astype(float) for o in objectives})
    return dense.loc[order.sort_values(list(order.columns), kind="stable").index[0]]


def write_confirmed(
    out: Path,
    front: pd.DataFrame,
    points: pd.DataFrame,
    objectives: Sequence[Objective],
    arms: dict[int, int],
    baseline: pd.Series | None = None,
) -> None:
    """Write confirm.csv: a row per point of the front, with n, mean and interval of every metric over fresh seeds.

    ``<metric>_mean``, ``_low``, ``_high``: mean over seeds and its 95 % interval inside the metric's range, below three
    seeds their range. ``selected_<metric>``: the value by which the point was chosen. ``winners_curse``: that value
    minus the mean on the test split. ``difference_*``: paired difference to the baseline over ``pairs`` common seeds;
    ``cost_of_baseline``: mean cost as a share of its.

    Args:
        arms: trial on the front -> the trial of the same configuration that was trained again.
        baseline: the point that the others are compared with; its row comes last where it is not on the front.
    """
    chosen_points = compared_points(front, baseline)
    found = [seeds_of(chosen, points, arms) for chosen in chosen_points]
    rows = [_summary(chosen, own, objectives) for chosen, own in zip(chosen_points, found, strict=True)]
    _add_membership(out, rows, found, objectives)
    if baseline is not None:
        against = seeds_of(baseline, points, arms)
        for row, own, chosen in zip(rows, found, chosen_points, strict=True):
            row[BASELINE] = int(baseline["trial"])
            if not _is_same(chosen, baseline):
                row |= _paired(own, against, objectives)
    write_table(out / CONFIRM_FILE, rows)


def compared_points(front: pd.DataFrame, baseline: pd.Series | None) -> list[pd.Series]:
    """Return the points of a front, and last the baseline where it is not one of them."""
    chosen = [row for _, row in front.iterrows()]
    if baseline is not None and not any(_is_same(row, baseline) for row in chosen):
        chosen.append(baseline)
    return chosen


def seeds_of(chosen: pd.Series, points: pd.DataFrame, arms: dict[int, int]) -> pd.DataFrame:
    """Return the rows of fresh trainings that stand for a point, one a seed."""
    own = points[points[ARM].astype(str) == str(arms[int(chosen["trial"])])]
    matched = [match(chosen, group) for _, group in own.groupby("seed")]
    return pd.DataFrame([row for row in matched if row is not None])


def _add_membership(
    out: Path, rows: list[dict[str, Any]], found: Sequence[pd.DataFrame], objectives: Sequence[Objective]
) -> None:
    """Add to every row its probability of being on the front, and write the front's hypervolume; see ``membership``."""
    trained = [place for place, own in enumerate(found) if len(own)]
    if not trained or any(objective.reference is None for objective in objectives):
        return
    result = membership(
        [_repeats(out, found[place], objectives) for place in trained],
        reference_of(objectives),
    )
    for place, probability in zip(trained, result.probability, strict=True):
        rows[place][ON_FRONT] = float(probability)
    write_json(out / HYPERVOLUME_FILE, {**result.hypervolume._asdict(), "scale": scales_in_words(objectives)})


def seed_losses(own: pd.DataFrame, objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return the losses (S, M) of a point's trainings, on the test split where it was read; see ``seeds_of``."""
    columns = [compared_metric(objective, own) for objective in objectives]
    return losses_of(own[columns].astype(float).to_numpy(), objectives)


def _repeats(out: Path, own: pd.DataFrame, objectives: Sequence[Objective]) -> Repeats:
    losses = seed_losses(own, objectives)
    known = find(compared_metric(objectives[0], own))
    correct = [_correct(out, row) for _, row in own.iterrows()] if known is not None else []
    is_share = known is not None and known.name == "accuracy" and not objectives[0].in_logs
    counts = is_share and all(one is not None for one in correct)
    return Repeats(losses, np.array(correct) if counts else None)


def _correct(out: Path, row: pd.Series) -> NDArray[np.bool_] | None:
    """Return the images that an operating point of a trial is right about, None where that was not kept."""
    try:
        content = json.loads((trial_folder(out, int(row["trial"])) / TEST_FILE).read_text(encoding="utf-8"))
        for point, text in zip(content["points"], content[CORRECT], strict=True):
            same_knob = str(point["knob_value"]) == str(row["knob_value"]) or bool(row["is_default"])
            if bool(point["is_default"]) == bool(row["is_default"]) and same_knob:
                return unpack(text)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of a version before 0.2, or not there
    return None


def _is_same(one: pd.Series, other: pd.Series) -> bool:
    return all(str(one.get(key)) == str(other.get(key)) for key in ("trial", *OPERATING_POINT))


def compared_metric(objective: Objective, found: pd.DataFrame) -> str:
    """Return the column in which trainings are compared: the test split's where it was read."""
    test = on_split(objective.metric, "test")
    return test if test in found else objective.metric


def _paired(own: pd.DataFrame, against: pd.DataFrame, objectives: Sequence[Objective]) -> dict[str, Any]:
    """Return the difference to the baseline seed by seed, and the cost as a share of its."""
    if own.empty or against.empty:
        return {PAIRS: 0}
    metric = compared_metric(objectives[0], own)
    ours, theirs = (rows.set_index("seed")[metric].astype(float) for rows in (own, against))
    differences = (ours - theirs).dropna().to_numpy()
    row: dict[str, Any] = {PAIRS: len(differences)}
    if len(differences):
        known = find(metric)
        width = np.inf if known is None else known.high - known.low
        found = bounded_interval(differences, -width, width)
        row |= {f"{DIFFERENCE}{end}": value for end, value in zip((MEAN, LOW, HIGH), found, strict=True)}
    cost = next((o.metric for o in objectives if o.is_cost), None)
    if cost is not None and float(against[cost].mean()) > 0:
        row[OF_BASELINE] = float(own[cost].mean() / against[cost].mean())
    return row


def match(chosen: pd.Series, points: pd.DataFrame) -> pd.Series | None:
    """Return the row of one training that stands for a point of the front.

    The default point stands for a default point, the same knob value for a knob value; where a retrained model has
    other values (a threshold is chosen on the scores of its model), the point of the nearest cost.
    """
    if points.empty:
        return None
    if bool(chosen["is_default"]):
        defaults = points[points["is_default"].astype(bool)]
        return defaults.iloc[0] if len(defaults) else None
    same = points[points["knob_value"].astype(str) == str(chosen["knob_value"])]
    if len(same):
        return same.iloc[0]
    if "flops" not in points:  # of a script
        return None
    distance = (np.log(points["flops"].clip(lower=1e-12)) - np.log(max(chosen["flops"], 1e-12))).abs()
    return points.loc[distance.idxmin()]


def _summary(chosen: pd.Series, found: pd.DataFrame, objectives: Sequence[Objective]) -> dict[str, Any]:
    row: dict[str, Any] = {key: chosen[key] for key in ("trial", *OPERATING_POINT) if key in chosen}
    row["n"] = len(found)
    wanted = [c for c in points_metrics(found, [o.metric for o in objectives]) if c in found]
    for metric in wanted:
        values = pd.to_numeric(found[metric], errors="coerce").dropna().to_numpy(dtype=float)
        if len(values):
            mean, low, high = interval_of(metric, values)
            row |= {f"{metric}{MEAN}": mean, f"{metric}{LOW}": low, f"{metric}{HIGH}": high}
    task = objectives[0].metric
    row[f"{SELECTED}{task}"] = float(chosen[task])
    test = on_split(task, "test")
    if test != task and f"{test}{MEAN}" in row:
        row[WINNERS_CURSE] = objectives[0].sign * (row[f"{test}{MEAN}"] - row[f"{SELECTED}{task}"])
    names = [key for key in chosen.index if "." in str(key) and not pd.isna(chosen[key])]
    return {**row, **{str(key): chosen[key] for key in names}}


def points_metrics(found: pd.DataFrame, objectives: Sequence[str]) -> list[str]:
    """Return the metrics to summarise: the objectives, those of the test split, and the realised routing ratio."""
    tests = [str(column) for column in found if split_of(str(column)) == "test"]
    return list(dict.fromkeys([*objectives, *tests, "routing_ratio"]))
