"""Which images of a data set without declared splits go where; decided by seed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from routing.errors import InputError

Indices = NDArray[np.int64]


def cut_by_seed(
    count: int, seed: int, *, val_fraction: float, test_fraction: float = 0.0, num_train: int | None = None
) -> dict[str, Indices]:
    """Cut ``count`` images into disjoint ``train``, ``val`` and (where asked for) ``test``.

    The validation images depend on the seed and their fraction only, not on ``num_train``, the number of training
    images that are kept; the others are left unused.

    Raises:
        InputError: nothing is left to train on.
    """
    order = np.random.default_rng([seed, 0]).permutation(count)
    val, test = _sizes(count, val_fraction, test_fraction)
    train = order[val + test :][:num_train]
    if not len(train):
        raise InputError(f"{count} images are too few: {val} for validation and {test} for test leave none to train on")
    cut = {"train": train, "val": order[:val], "test": order[val : val + test]}
    return {name: indices for name, indices in cut.items() if len(indices)}


def cut_by_class(
    labels: Indices, seed: int, *, val_fraction: float, test_fraction: float = 0.0, num_train: int | None = None
) -> dict[str, Indices]:
    """Cut as ``cut_by_seed`` does, every class in the same proportions (stratified); ``labels`` (N,) from 0.

    A class keeps an image to train on before another split gets one. The first ``num_train`` training images hold the
    classes in their proportions too.

    Raises:
        InputError: nothing is left to train on.
    """
    rng = np.random.default_rng([seed, 0])
    order = _interleaved(labels, rng.permutation(len(labels)), rng)
    left = np.bincount(labels)
    cut: dict[str, Indices] = {}
    for name, size in zip(("val", "test"), _sizes(len(labels), val_fraction, test_fraction), strict=True):
        quota = _quotas(np.bincount(labels), size, np.maximum(left - 1, 0))
        left = left - quota
        taken = _rank_in_class(labels[order]) < quota[labels[order]]
        cut[name], order = order[taken], order[~taken]
    cut["train"] = order[:num_train]
    if not len(cut["train"]) or (val_fraction and not len(cut["val"])):
        raise InputError(f"{len(labels)} images are too few to train on some and to validate on others")
    return {name: cut[name] for name in ("train", "val", "test") if len(cut[name])}


def _sizes(count: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    val = max(1, round(val_fraction * count)) if val_fraction else 0
    return val, max(1, round(test_fraction * count)) if test_fraction else 0


def _interleaved(labels: Indices, shuffled: Indices, rng: np.random.Generator) -> Indices:
    """Return a shuffled order whose every beginning holds the classes about in their proportions."""
    counts = np.bincount(labels)
    place = (_rank_in_class(labels[shuffled]) + rng.random(len(shuffled))) / counts[labels[shuffled]]
    return shuffled[np.argsort(place, kind="stable")]


def _rank_in_class(labels: Indices) -> Indices:
    """Return for every entry how many of its class come before it."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    ranks = np.empty(len(labels), np.int64)
    ranks[by_class] = np.arange(len(labels)) - first
    return ranks


def _quotas(counts: Indices, total: int, most: Indices) -> Indices:
    """Return how many of every class, ``total`` in all where ``most`` allows: by largest remainder, in proportion."""
    ideal = counts * (total / max(1, counts.sum()))
    quota = np.minimum(np.floor(ideal).astype(np.int64), most)
    for label in np.argsort(-(ideal - quota), kind="stable"):
        if quota.sum() >= total:
            break
        quota[label] += quota[label] < most[label]
    return quota
