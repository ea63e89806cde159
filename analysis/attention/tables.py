"""The numbers of an attention analysis as tables: one row per layer and head, one per pair of heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.attention.statistics import LayerStatistics
from routing.intervals import mean_interval


def similarity_table(layers: Sequence[LayerStatistics]) -> pd.DataFrame:
    """Return every head similarity as rows: layer, head, other, cosine."""
    return pd.DataFrame(
        [
            {"layer": layer.name, "head": a, "other": b, "cosine": layer.similarity[a, b]}
            for layer in layers
            for a, b in np.ndindex(*layer.similarity.shape)
        ]
    )


def statistics_table(layers: Sequence[LayerStatistics]) -> pd.DataFrame:
    """Return one row per layer and head: means over images of entropy, peak, mean attention and distance."""
    return pd.DataFrame(
        [
            {
                "layer": layer.name,
                "head": head,
                "images": len(layer.entropy),
                "entropy": layer.entropy[:, head].mean(),
                "entropy_low": mean_interval(layer.entropy[:, head]).low,
                "entropy_high": mean_interval(layer.entropy[:, head]).high,
                "peak": layer.peak[:, head].mean(),
                "mean": np.nan if layer.mean is None else layer.mean[:, head].mean(),
                "distance": np.nan if layer.distance is None else layer.distance[:, head].mean(),
                **{name: values[:, head].mean() for name, values in layer.own.items()},
            }
            for layer in layers
            for head in range(layer.entropy.shape[1])
        ]
    )
