"""Comparing fronts of several studies: one joint reference, hypervolume over repeats, epsilon, attainment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.read.objectives import losses, reference_losses
from analysis.read.results import Results
from routing.errors import InputError
from routing.intervals import mean_interval
from routing.pareto import hypervolume, is_on_front, loss_matrix


@dataclass(frozen=True)
class Group:
    """The repeats of one study: its name, and the loss vectors of each repeat's front."""

    name: str
    fronts: tuple[NDArray[np.float64], ...]

    @property
    def joint(self) -> NDArray[np.float64]:
        """The front of all repeats together, as loss vectors."""
        together = np.concatenate(self.fronts)
        return together[is_on_front(together)]


def group_studies(results: Sequence[Results]) -> list[Group]:
    """Return results folders grouped into repeats: folders of one study name are repeats of one study.

    A folder without an operating point has only begun and is no repeat yet; one whose points all break a constraint is
    a repeat with an empty front, of hypervolume 0.

    Raises:
        InputError: the studies have different objectives and cannot be compared.
    """
    wanted = [(o.metric, o.goal, o.scale) for o in results[0].objectives]
    fronts: dict[str, list[NDArray[np.float64]]] = {}
    for one in results:
        found = [(o.metric, o.goal, o.scale) for o in one.objectives]
        if found != wanted:
            raise InputError(
                f"{one.folder}: its objectives ({_words(found)}) differ from those of {results[0].folder} "
                f"({_words(wanted)}): their fronts cannot be compared"
            )
        if one.points.empty:
            continue
        vectors = losses(one.candidates, one.objectives)
        fronts.setdefault(one.name, []).append(vectors[is_on_front(vectors)])
    return [Group(name, tuple(repeats)) for name, repeats in fronts.items()]


def same_seeds(results: Sequence[Results]) -> list[str]:
    """Return a line per folder that is no independent repeat: another of its study ran under the same seeds."""
    first: dict[tuple[str, str], Results] = {}
    lines = []
    for one in results:
        seeds = _seeds(one.study)
        other = first.setdefault((one.name, seeds), one)
        if seeds and other is not one:
            lines.append(
                f"{one.folder}: {seeds}, as in {other.folder}: no independent repeat, so that n is too large and the "
                f"interval of {one.name} too narrow"
            )
    return lines


def _seeds(study: dict[str, Any]) -> str:
    """Return the seeds of a study in words, empty where it declares none."""
    sampler, base = study.get("sampler"), study.get("base")
    if isinstance(sampler, dict):
        trained = base.get("seed", 0) if isinstance(base, dict) else 0
        return f"sampler.seed {sampler.get('seed', 0)} and seed {trained}"
    return f"seeds {study['seeds']}" if "seeds" in study else ""


def _words(objectives: Sequence[tuple[str, str, str]]) -> str:
    return ", ".join(f"{goal} {metric}" + " in logs" * (scale == "log") for metric, goal, scale in objectives)


def joint_reference(results: Sequence[Results]) -> NDArray[np.float64]:
    """Return one reference point (M,) for all: in each objective the worst of those the studies use."""
    return np.max([reference_losses(losses(r.candidates, r.objectives), r.objectives) for r in results], axis=0)


def compare_groups(groups: Sequence[Group], reference: ArrayLike) -> pd.DataFrame:
    """Return a row per group: repeats n, hypervolume mean with 95 % interval, and epsilon to the joint front.

    ``epsilon`` is the additive epsilon indicator of the group's joint front against the front of all groups, with
    each loss scaled to [0, 1] over that front: how far, as a share of the range, the group must be moved to reach it;
    0 means that nothing is missing.
    """
    everything = np.concatenate([group.joint for group in groups])
    best = everything[is_on_front(everything)]
    rows = []
    for group in groups:
        volume = mean_interval([hypervolume(front, reference) for front in group.fronts])
        rows.append(
            {
                "study": group.name,
                "n": len(group.fronts),
                "hypervolume_mean": volume.mean,
                "hypervolume_low": volume.low,
                "hypervolume_high": volume.high,
                "epsilon": epsilon(group.joint, best),
            }
        )
    return pd.DataFrame(rows)


def epsilon(front: ArrayLike, target: ArrayLike) -> float:
    """Return the additive epsilon of ``front`` against ``target`` (N, M), losses scaled to [0, 1] over ``target``.

    NaN when either is empty. Source: Zitzler et al., "Performance assessment of multiobjective optimizers", IEEE TEC
    7 (2003).
    """
    ours, wanted = loss_matrix(front), loss_matrix(target)
    if not len(ours) or not len(wanted):
        return math.nan
    low, high = wanted.min(axis=0), wanted.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    return float(moocore.epsilon_additive((ours - low) / width, ref=(wanted - low) / width))


def attainment(fronts: Sequence[ArrayLike], share: float) -> NDArray[np.float64]:
    """Return the surface (K, 2) attained by at least ``share`` of the repeats, ordered by the last loss.

    Args:
        fronts: loss vectors (N, 2) of each repeat.
        share: in (0, 1]; 0.5 is the median front, 1 what every repeat reached.

    Source: Fonseca et al., "Exploring the performance of stochastic multiobjective optimisers with the second-order
    attainment function", EMO 2005; computed by moocore.
    """
    filled = [loss_matrix(front) for front in fronts]
    needed = math.ceil(round(share * len(filled), 9))
    if not 1 <= needed <= len(filled):
        raise ValueError(f"share must be in (0, 1], not {share}")
    if sum(len(front) > 0 for front in filled) < needed:
        return np.empty((0, 2))
    sets = np.repeat(np.arange(len(filled)), [len(front) for front in filled])
    present = len(np.unique(sets))  # an empty front attains nothing: the share is counted over all repeats
    surface = moocore.eaf(np.concatenate(filled), sets, percentiles=[100 * needed / present])[:, :2]
    return np.asarray(surface[np.argsort(surface[:, 1], kind="stable")])
