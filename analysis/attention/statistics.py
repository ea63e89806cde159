"""Numbers of attention: how focused, how far, how alike the heads are. Every one is defined here and drawn elsewhere.

Shapes: M images, H heads, Q queries, T tokens attended to, N patches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from routing.errors import InputError
from routing.models.attention import AttentionLayer

Array = NDArray[np.float64]
Statistic = Callable[[AttentionLayer], Tensor]
"""One number per image and head (B, H) of a layer's attention."""


@dataclass(frozen=True)
class LayerStatistics:
    """One layer over all images.

    entropy: (M, H) in [0, 1], mean over queries of -sum p log p / log T; 1 is uniform, 0 is one token.
    peak: (M, H) highest share of the reader's attention that one patch gets.
    mean: (M, H) mean attention of the reader to a patch, CLS's own share left out of the sum; None without CLS, where
        it is 1 / N by definition.
    distance: (M, H) mean distance between a patch and what it attends to, in patches; None without patch queries.
    uniform_distance: the same for uniform attention.
    similarity: (H, H) cosine between the heads' attention to patches, mean over images.
    agreement: (M,) mean of that cosine over pairs of heads; 1 where there is one head.
    own: (M, H) of every further statistic, by name.
    """

    name: str
    entropy: Array
    peak: Array
    mean: Array | None
    distance: Array | None
    uniform_distance: float
    similarity: Array
    agreement: Array
    own: dict[str, Array] = field(default_factory=dict)


def entropy(rows: Tensor) -> Tensor:
    """Return the entropy of distributions (..., T) as a share of log T, in [0, 1]; 0 where T = 1."""
    if rows.shape[-1] == 1:
        return torch.zeros(rows.shape[:-1])
    return torch.special.entr(rows.double()).sum(dim=-1) / math.log(rows.shape[-1])


def distances(grid: tuple[int, int]) -> Tensor:
    """Return the Euclidean distance (N, N) between the centres of patches, in patches."""
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], dim=1).double()
    return torch.cdist(places, places)


def successive_cosine(maps: list[Array]) -> list[float]:
    """Return the cosine of every map (N,) to the one before it; NaN where their grids differ."""
    return [_cosine(a, b) if len(a) == len(b) else math.nan for a, b in itertools.pairwise(maps)]


def _cosine(a: Array, b: Array) -> float:
    return float(a @ b / max(1e-12, float(np.linalg.norm(a) * np.linalg.norm(b))))


def statistics(
    batches: Iterable[list[AttentionLayer]], own: Mapping[str, Statistic] | None = None
) -> list[LayerStatistics]:
    """Return the statistics of every layer over all batches of images, with those of one's ``own`` by name.

    Raises:
        InputError: a statistic of one's own is not one number per image and head.
    """
    parts = [[_of_batch(layer, own or {}) for layer in layers] for layers in batches]
    found = []
    for of_layer in zip(*parts, strict=True):
        counts = [len(part.entropy) for part in of_layer]
        far = [part.distance for part in of_layer if part.distance is not None]
        means = [part.mean for part in of_layer if part.mean is not None]
        found.append(
            LayerStatistics(
                name=of_layer[0].name,
                entropy=np.concatenate([part.entropy for part in of_layer]),
                peak=np.concatenate([part.peak for part in of_layer]),
                mean=np.concatenate(means) if means else None,
                distance=np.concatenate(far) if far else None,
                uniform_distance=of_layer[0].uniform_distance,
                similarity=np.average([part.similarity for part in of_layer], axis=0, weights=counts),
                agreement=np.concatenate([part.agreement for part in of_layer]),
                own={name: np.concatenate([part.own[name] for part in of_layer]) for name in of_layer[0].own},
            )
        )
    return found


def _of_batch(layer: AttentionLayer, own: Mapping[str, Statistic]) -> LayerStatistics:
    patches_BHN = layer.patches_BHN().double()
    between = distances(layer.grid)
    unit = patches_BHN / patches_BHN.norm(dim=2, keepdim=True).clamp(min=1e-12)
    cosines_BHH = unit @ unit.transpose(1, 2)
    return LayerStatistics(
        name=layer.name,
        entropy=entropy(layer.maps).mean(dim=2).numpy(),
        peak=patches_BHN.amax(dim=2).numpy(),
        mean=layer.reader_BHT()[:, :, layer.first_patch :].double().mean(dim=2).numpy() if layer.has_cls else None,
        distance=_distance(layer, between),
        uniform_distance=float(between.mean()),
        similarity=cosines_BHH.mean(dim=0).numpy(),
        agreement=_mean_of_pairs(cosines_BHH),
        own={name: _own(name, statistic, layer) for name, statistic in own.items()},
    )


def _mean_of_pairs(cosines_BHH: Tensor) -> Array:
    heads = cosines_BHH.shape[1]
    if heads == 1:
        return np.ones(len(cosines_BHH))
    pairs = torch.triu_indices(heads, heads, offset=1)
    found: Array = cosines_BHH[:, pairs[0], pairs[1]].mean(dim=1).numpy()
    return found


def _own(name: str, statistic: Statistic, layer: AttentionLayer) -> Array:
    values = statistic(layer).double()
    shape = layer.maps.shape[:2]
    if values.shape != shape:
        raise InputError(
            f"statistic '{name}' is {tuple(values.shape)}, not {tuple(shape)}: one number per image and head"
        )
    found: Array = values.numpy()
    return found


def _distance(layer: AttentionLayer, between_NN: Tensor) -> Array | None:
    """Return the mean over patch queries of the attention-weighted distance (B, H)."""
    if layer.maps.shape[2] == 1:
        return None
    first = layer.first_patch
    maps = layer.maps[:, :, first:, first:].double()
    maps = maps / maps.sum(dim=3, keepdim=True).clamp(min=1e-12)
    far = between_NN[None, None]
    if layer.kept is not None:
        places = layer.kept[:, first:] - first
        far = between_NN[places[:, :, None], places[:, None, :]][:, None]
    weighted: Array = (maps * far).sum(dim=3).mean(dim=2).numpy()
    return weighted
