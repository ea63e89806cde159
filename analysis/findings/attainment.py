"""The attainment surface of a confirmed front: what any, half, and every one of its fresh seeds reaches at a cost."""

from __future__ import annotations

import moocore
import numpy as np
import pandas as pd

from analysis.findings.confirmed import on_test_split
from analysis.read.results import Results
from routing.files.results_folder import CONFIRM_FOLDER, POINTS_FILE
from routing.objectives import Objective, losses_of

PERCENTILES = (0.0, 50.0, 100.0)
"""Share of the seeds, in percent, that reach at least the surface: any of them, half of them, all."""


def attainment(results: Results) -> pd.DataFrame:
    """Return the surfaces of ``confirm/points.csv`` as ``percentile``, ``x`` (cost), ``y`` (task); empty without.

    Source: Fonseca, Guerreiro, Lopez-Ibanez and Paquete, "On the computation of the empirical attainment function",
    EMO 2011 (as moocore computes it).
    """
    objectives = results.objectives
    try:
        points = pd.read_csv(results.folder / CONFIRM_FOLDER / POINTS_FILE)
    except (OSError, ValueError):
        return pd.DataFrame()
    if len(objectives) != 2 or points.empty:
        return pd.DataFrame()
    test = on_test_split(objectives[0].metric)
    columns = [test if test in points else objectives[0].metric, objectives[1].metric]
    if not {*columns, "seed"} <= set(points):
        return pd.DataFrame()
    points = points.dropna(subset=[*columns, "seed"])
    if points["seed"].nunique() < 2:
        return pd.DataFrame()
    return _surfaces(points[columns].to_numpy(dtype=float), points["seed"].to_numpy(), objectives)


def _surfaces(values: np.ndarray, seeds: np.ndarray, objectives: tuple[Objective, ...]) -> pd.DataFrame:
    order = np.argsort(seeds, kind="stable")
    sets = np.unique(seeds[order], return_inverse=True)[1] + 1
    found = moocore.eaf(losses_of(values[order], objectives), sets, percentiles=list(PERCENTILES))
    y, x = (objective.value(column) for objective, column in zip(objectives, found[:, :2].T, strict=True))
    surface = pd.DataFrame({"percentile": found[:, 2], "x": x, "y": y})
    return surface.sort_values(["percentile", "x"], kind="stable", ignore_index=True)
