"""A tiny configuration of every model family, as keys of a run, for tests that hold for all of them."""

from __future__ import annotations

import functools
from typing import Any

from routing.config.run import RunConfig
from routing.config.section import DatasetSection
from routing.data import ImageData

BATCH = 8
VIT = {"model.name": "vit", "model.width": 8, "model.heads": 2, "model.depth": 2, "model.mlp": 8}
_NETWORK = {key.replace("model.", "model.network."): value for key, value in VIT.items()}
_PRUNED = {**VIT, "model.pruning.k_anchors": 2, "model.pruning.top_m": 4}
_QUALITY = {
    "dataset.name": "quality",
    "model.name": "hyperiqa",
    "model.crop_size": 32,
    "model.backbone.widths": [4, 8, 8, 16],
}
ROUTERS = (
    "learnable_threshold", "sigmoid_gate", "gumbel", "quantile_threshold", "top_k", "random", "permuted", "centre",
    "edge_energy", "oracle", "post_hoc",
)  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    **{name: {"model.router.mode": name} for name in ROUTERS},
    "jitter": {"model.router.threshold_jitter": 0.1},
    "sparse training": {"model.router.training": "sparse"},
    "dense training": {"model.router.training": "dense"},
    "attention pooling": {"model.aggregator": "attention"},
    "full_compute": {"model.name": "full_compute"},
    "routed_conv": {"model.name": "routed_conv"},
    "routed_conv by share": {"model.name": "routed_conv", "model.router.mode": "top_k"},
    "full_conv": {"model.name": "full_conv"},
    "conv_net": {"model.name": "conv_net"},
    "early_exit": {"model.name": "early_exit", "model.network.name": "conv_net"},
    "early_exit of a transformer": {**_NETWORK, "model.name": "early_exit"},
    "vit": VIT,
    "vit, pruned": {**_PRUNED, "model.pruning.method": "importance_diversity"},
    "vit, merged": {**_PRUNED, "model.pruning.method": "merge"},
    "vit, evit": {**VIT, "model.pruning.method": "evit", "model.pruning.schedule": {1: 0.5}},
    "vit, tome": {**VIT, "model.pruning.method": "tome", "model.pruning.schedule": {1: 0.5}},
    "vit, amod": {**VIT, "model.pruning.method": "amod", "model.pruning.schedule": {1: 0.5}},
    "vit, dynamicvit": {
        **VIT,
        "model.pruning.method": "dynamicvit",
        "model.pruning.schedule": {1: 0.5},
        "training.reduce_tokens": True,
    },
    "vit, mean_attention": {**_PRUNED, "model.pruning.method": "mean_attention"},
    "routed_vit": {**VIT, "model.name": "routed_vit"},
    "aacn": {"model.name": "aacn", "model.decision.keep_ratio": 0.5},
    "torchvision_net": {"model.name": "torchvision_net", "model.architecture": "resnet18"},
    "hyperiqa": _QUALITY,
    "hyperiqa, random crops": {**_QUALITY, "model.crop_places": "random"},
    "hyperiqa, fewer scales": {**_QUALITY, "model.fusion.scales": [3, 4], "model.fewer_scales_weight": 0.5},
}


def family(keys: dict[str, Any]) -> RunConfig:
    """Return the run of one family, in batches of eight."""
    sizes = {"dataset.num_train": 4 * BATCH, "dataset.num_val": 3 * BATCH, "dataset.num_test": 3 * BATCH}
    return RunConfig.from_dict(
        {**sizes, "training.batch_size": BATCH, "evaluation.batch_size": BATCH, "training.num_epochs": 1, **keys}
    )


@functools.lru_cache(maxsize=4)
def loaded(dataset: DatasetSection) -> ImageData:
    """Return the data, read once for all families."""
    return dataset.load()
