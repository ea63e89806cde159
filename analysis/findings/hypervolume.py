"""How the hypervolume grew over a study."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from routing.pareto import hypervolume, is_on_front, loss_matrix


def hypervolume_history(batches: Iterable[ArrayLike], reference: ArrayLike) -> NDArray[np.float64]:
    """Return the hypervolume after each batch (K, M) of loss vectors, as (number of batches,).

    Only the current front is kept, and a batch that adds nothing to it costs one comparison.
    """
    corner = np.asarray(reference, dtype=float)
    front = np.empty((0, len(corner)))
    volume, history = 0.0, []
    for batch in batches:
        new = loss_matrix(batch)
        new = new[np.all(new < corner, axis=1)]
        covered = np.any(np.all(front[None, :, :] <= new[:, None, :], axis=2), axis=1)
        if not covered.all():
            front = np.concatenate([front, new[~covered]])
            front = front[is_on_front(front)]
            volume = hypervolume(front, corner)
        history.append(volume)
    return np.array(history)
