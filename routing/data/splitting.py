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

    The validation images depend on the seed and their fraction only, not on ``num_train``, which keeps so many
    training images and leaves the others unused.

    Raises:
        InputError: nothing is left to train on.
    """
    order = np.random.default_rng([seed, 0]).permutation(count)
    val = max(1, round(val_fraction * count)) if val_fraction else 0
    test = max(1, round(test_fraction * count)) if test_fraction else 0
    train = order[val + test :][:num_train]
    if not len(train):
        raise InputError(f"{count} images are too few: {val} for validation and {test} for test leave none to train on")
    cut = {"train": train, "val": order[:val], "test": order[val : val + test]}
    return {name: indices for name, indices in cut.items() if len(indices)}
