"""Names that configurations may use, each pointing at the class behind it, imported only when asked for.

A built-in entry is a ``"module:attribute"`` string, so that a configuration can be checked without importing torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from routing.errors import InputError, choices, nearest

T = TypeVar("T")


def resolve(path: str) -> Any:
    """Return what a ``"module:attribute"`` string names, importing the module."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry:
    """A table from a configuration's word (``top_k``) to what it stands for (``TopKRouter``).

    Args:
        kind: what the entries are, as an error message would call one (``"router mode"``).
        entries: built-in entries, ``name -> "module:attribute"``.
    """

    def __init__(self, kind: str, entries: dict[str, str]) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = dict(entries)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds a class or function under ``name``; a taken name is an error."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise InputError(f"{self.kind} '{name}' is registered already")
            self._entries[name] = entry
            return entry

        return add

    def check(self, name: str) -> str:
        """Return ``name`` when it is known, else raise ``InputError`` with the nearest valid name."""
        if name not in self._entries:
            raise InputError(f"unknown {self.kind} '{name}'{nearest(name, self)} (valid: {choices(self)})")
        return name

    def get(self, name: str) -> Any:
        """Return the entry of ``name``, importing its module on first use."""
        entry = self._entries[self.check(name)]
        if isinstance(entry, str):
            entry = self._entries[name] = resolve(entry)
        return entry


DATASETS = Registry(
    "data set",
    {
        "digits": "routing.data.sections:DigitsSection",
        "image_folder": "routing.data.sections:ImageFolderSection",
        "cifar10": "routing.data.sections:CifarSection",
        "cifar100": "routing.data.sections:CifarSection",
        "mnist": "routing.data.sections:MnistSection",
        "fashion_mnist": "routing.data.sections:MnistSection",
        "quality": "routing.data.quality_sections:QualitySection",
        "koniq10k": "routing.data.quality_sections:Koniq10kSection",
    },
)

MODELS = Registry(
    "model",
    {
        "attention_routing": "routing.models.patch.section:AttentionRoutingSection",
        "full_compute": "routing.models.patch.section:FullComputeSection",
        "cheap_compute": "routing.models.patch.section:CheapComputeSection",
        "no_routing": "routing.models.patch.section:NoRoutingSection",
        "dense_matched": "routing.models.patch.section:DenseMatchedSection",
        "vit": "routing.models.vit.section:VitSection",
        "timm_vit": "routing.models.vit.section:TimmVitSection",
        "torchvision_vit": "routing.models.vit.section:TorchvisionVitSection",
        "aacn": "routing.models.aacn.section:AacnSection",
        "hyperiqa": "routing.models.hyperiqa.section:HyperIqaSection",
    },
)

ROUTERS = Registry(
    "router mode",
    {
        "learnable_threshold": "routing.models.patch.routers:LearnableThreshold",
        "sigmoid_gate": "routing.models.patch.routers:SigmoidGate",
        "gumbel": "routing.models.patch.routers:Gumbel",
        "quantile_threshold": "routing.models.patch.routers:QuantileThreshold",
        "top_k": "routing.models.patch.routers:TopK",
        "random": "routing.models.patch.controls:Random",
        "permuted": "routing.models.patch.controls:Permuted",
        "centre": "routing.models.patch.controls:Centre",
        "edge_energy": "routing.models.patch.controls:EdgeEnergy",
        "oracle": "routing.models.patch.controls:Oracle",
        "post_hoc": "routing.models.patch.controls:PostHoc",
    },
)

AGGREGATORS = Registry(
    "aggregator",
    {
        "mean": "routing.models.patch.aggregators:Mean",
        "score_weighted": "routing.models.patch.aggregators:ScoreWeighted",
        "attention": "routing.models.patch.aggregators:Attention",
    },
)

TASKS = Registry(
    "task",
    {
        "classification": "routing.evaluation.tasks:Classification",
        "quality": "routing.evaluation.tasks:Quality",
    },
)

METRICS = Registry(
    "metric",
    {
        "top5_accuracy": "routing.evaluation.metrics:Top5Accuracy",
        "balanced_accuracy": "routing.evaluation.metrics:BalancedAccuracy",
        "calibration_error": "routing.evaluation.metrics:CalibrationError",
    },
)
