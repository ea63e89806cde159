"""Is attention where the evidence is? Accuracy when patches are hidden, or shown, in the order of attention.

deletion   hide the most attended patches first: a steep fall means that the model needs what it attends to
insertion  hide everything, show the most attended first: a steep rise means the same
control    the same shares in random order, mean over several draws, and the least attended first

Shapes: M images, N patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RANDOM_DRAWS = 3
HALF = SHARES.index(0.5)

Correct = Callable[[Tensor], Tensor]
"""From normalised images (M, C, S, S) to whether each is predicted correctly, float (M,)."""


@dataclass(frozen=True)
class HidingCurves:
    """Correctness of every image at every share of patches: (len(SHARES), M) each; random ones are means of draws.

    shares: realised ones, whole patches of the grid: of 25 patches 0.5 hides 12, which is 0.48.
    deletion_*: that share is hidden, the rest shown. insertion_*: that share is shown, the rest hidden.
    """

    deletion_most: NDArray[np.float64]
    deletion_least: NDArray[np.float64]
    deletion_random: NDArray[np.float64]
    insertion_most: NDArray[np.float64]
    insertion_random: NDArray[np.float64]
    shares: tuple[float, ...] = SHARES

    def curves(self) -> dict[str, NDArray[np.float64]]:
        """Return accuracy (len(SHARES),) of every curve by name."""
        return {name: values.mean(axis=1) for name, values in vars(self).items() if name != "shares"}

    def shares_of(self, name: str) -> tuple[float, ...]:
        """Return the share of patches hidden (deletion) or shown (insertion) at every point of a curve."""
        return self.shares if name.startswith("deletion") else tuple(1 - share for share in self.shares[::-1])

    def area(self, name: str) -> float:
        """Return the area under a curve, which is its mean accuracy over shares 0 to 1."""
        return float(np.trapezoid(self.curves()[name], self.shares_of(name)))


def hide(images: Tensor, hidden_MN: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return normalised images with the hidden patches at 0, the mean of the data."""
    mask = hidden_MN.view(-1, 1, *grid).float()
    mask = F.interpolate(mask, size=images.shape[2:], mode="nearest")
    return images.masked_fill(mask.bool(), 0.0)


def first_in_order(order_MN: Tensor, count: int) -> Tensor:
    """Return (M, N), True for the first ``count`` patches of every image's order."""
    chosen = torch.zeros_like(order_MN, dtype=torch.bool)
    return chosen.scatter(1, order_MN[:, :count], torch.ones_like(chosen))


def hiding_curves(
    images: Tensor, attention_MN: Tensor, grid: tuple[int, int], correct: Correct, seed: int = 0
) -> HidingCurves:
    """Measure deletion and insertion on normalised images (M, C, S, S) in the order of ``attention_MN``."""
    most = attention_MN.argsort(dim=1, descending=True, stable=True)
    count = most.shape[1]
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.rand(most.shape, generator=generator).argsort(dim=1) for _ in range(RANDOM_DRAWS)]

    def deletion(order: Tensor) -> NDArray[np.float64]:
        rows = [correct(hide(images, first_in_order(order, round(share * count)), grid)) for share in SHARES]
        return torch.stack(rows).double().numpy()

    deletion_random = np.mean([deletion(order) for order in shuffled], axis=0)
    deletion_least = deletion(most.flip(1))
    return HidingCurves(
        deletion_most=deletion(most),
        deletion_least=deletion_least,
        deletion_random=deletion_random,
        # showing the most attended first is hiding the least attended first, read backwards
        insertion_most=deletion_least[::-1].copy(),
        insertion_random=deletion_random[::-1].copy(),
        shares=tuple(round(share * count) / count for share in SHARES),
    )


def half_hidden(
    images: Tensor, orders: Mapping[str, tuple[Tensor, tuple[int, int]]], correct: Correct
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return correctness (M,) with the more and with the less attended half hidden, in the order of every layer.

    Args:
        orders: name of a layer -> its attention (M, N), and its grid.
    """
    found = {}
    for name, (attention_MN, grid) in orders.items():
        most = attention_MN.argsort(dim=1, descending=True, stable=True)
        count = round(SHARES[HALF] * most.shape[1])
        both = [correct(hide(images, first_in_order(order, count), grid)) for order in (most, most.flip(1))]
        found[name] = (both[0].double().numpy(), both[1].double().numpy())
    return found
