"""Names that configurations may use, each pointing at the class behind it, imported only when asked for.

A built-in entry is a ``"module:attribute"`` string, so that a configuration can be checked without importing torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from routing.config.declared import declare_metric, declare_task
from routing.errors import InputError, choices, nearest

T = TypeVar("T")


def resolve(path: str) -> Any:
    """Import and return the attribute of a ``"module:attribute"`` string."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry:
    """A table from a name in a configuration (``top_k``) to its class (``TopKRouter``).

    Args:
        kind: what the entries are, as an error message would call one (``"router mode"``).
        entries: built-in entries, ``name -> "module:attribute"``.
        declare: called with name and entry of each registration; an entry that it refuses is not registered.
        elsewhere: given an unknown name, what to write instead, begun with a semicolon, or nothing.
    """

    def __init__(
        self,
        kind: str,
        entries: dict[str, str],
        declare: Callable[[str, Any], None] | None = None,
        elsewhere: Callable[[str], str] = lambda name: "",
    ) -> None:
        self.kind, self._declare, self._elsewhere = kind, declare, elsewhere
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
            if self._declare is not None:
                self._declare(name, entry)
            self._entries[name] = entry
            return entry

        return add

    def remove(self, name: str) -> None:
        """Take a registered entry out again."""
        self._entries.pop(self.check(name))

    def check(self, name: str) -> str:
        """Return ``name`` when it is known, else raise ``InputError`` with the nearest valid name."""
        if name not in self._entries:
            raise InputError(self.unknown(name))
        return name

    def unknown(self, name: object) -> str:
        """Return the line that answers a name which is not registered."""
        hint = self._elsewhere(str(name)) or nearest(str(name), self)
        return f"unknown {self.kind} {name!r}{hint} (valid: {choices(self)})"

    def get(self, name: str) -> Any:
        """Return the entry of ``name``, importing its module on first use."""
        entry = self._entries[self.check(name)]
        if isinstance(entry, str):
            entry = self._entries[name] = resolve(entry)
        return entry


def _architecture(name: str) -> str:
    """Return how the architecture of a library is asked for, where this is the name of one."""
    if name in TORCHVISION_BACKBONES:
        return f"; of torchvision it is model.name torchvision_net with model.architecture {name}"
    with suppress(ImportError):
        import timm

        if timm.is_model(name):
            return f"; of timm it is model.name timm_net, or timm_vit for a transformer, with model.architecture {name}"
    return ""


DATASETS = Registry(
    "data set",
    {
        "digits": "routing.data.sections:DigitsSection",
        "image_folder": "routing.data.sections:ImageFolderSection",
        "boxed_images": "routing.data.sections:BoxedImagesSection",
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
        "routed_conv": "routing.models.patch.section:RoutedConvSection",
        "full_conv": "routing.models.patch.section:FullConvSection",
        "cheap_conv": "routing.models.patch.section:CheapConvSection",
        "conv_net": "routing.models.conv.section:ConvNetSection",
        "torchvision_net": "routing.models.conv.section:TorchvisionNetSection",
        "timm_net": "routing.models.conv.section:TimmNetSection",
        "early_exit": "routing.models.exits.section:EarlyExitSection",
        "vit": "routing.models.vit.section:VitSection",
        "routed_vit": "routing.models.vit.section:RoutedVitSection",
        "timm_vit": "routing.models.vit.section:TimmVitSection",
        "torchvision_vit": "routing.models.vit.section:TorchvisionVitSection",
        "transformers_vit": "routing.models.vit.section:TransformersVitSection",
        "aacn": "routing.models.aacn.section:AacnSection",
        "hyperiqa": "routing.models.hyperiqa.section:HyperIqaSection",
    },
    elsewhere=_architecture,
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
        "attention": "routing.models.patch.aggregators:AttentionPooling",
    },
)

TASKS = Registry(
    "task",
    {
        "classification": "routing.evaluation.tasks:Classification",
        "quality": "routing.evaluation.tasks:Quality",
    },
    declare_task,
)

METRICS = Registry(
    "metric",
    {
        "top5_accuracy": "routing.evaluation.metrics:Top5Accuracy",
        "balanced_accuracy": "routing.evaluation.metrics:BalancedAccuracy",
        "calibration_error": "routing.evaluation.metrics:CalibrationError",
    },
    declare_metric,
)

SELECTIONS = Registry(
    "token method",
    {
        "importance_diversity": "routing.models.vit.token_methods:ImportanceDiversity",
        "tome": "routing.models.vit.block_methods:Tome",
        "evit": "routing.models.vit.block_methods:Evit",
        "amod": "routing.models.vit.block_methods:Amod",
        "dynamicvit": "routing.models.vit.token_methods:DynamicVit",
        "random": "routing.models.vit.token_methods:Random",
        "cls_attention": "routing.models.vit.token_methods:ClsAttention",
        "mean_attention": "routing.models.vit.token_methods:MeanAttention",
        "diversity": "routing.models.vit.token_methods:Diversity",
        "merge": "routing.models.vit.token_methods:Merge",
    },
)

FUSIONS = Registry(
    "fusion",
    {
        "single": "routing.models.hyperiqa.fusion:Single",
        "concat": "routing.models.hyperiqa.fusion:Concat",
        "uniform": "routing.models.hyperiqa.fusion:Uniform",
        "attention": "routing.models.hyperiqa.fusion:Attention",
        "spatial": "routing.models.hyperiqa.fusion:Spatial",
        "cross_scale": "routing.models.hyperiqa.fusion:CrossScale",
    },
)

TORCHVISION_BACKBONES = tuple(
    """
    convnext_tiny convnext_small convnext_base convnext_large densenet121 densenet161 densenet169 densenet201
    efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
    efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3
    mobilenet_v2 mobilenet_v3_small mobilenet_v3_large regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf
    regnet_x_8gf regnet_x_16gf regnet_x_32gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf
    regnet_y_16gf regnet_y_32gf regnet_y_128gf resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d
    resnext101_32x8d resnext101_64x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
    squeezenet1_0 squeezenet1_1 vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn wide_resnet50_2
    wide_resnet101_2
    """.split()
)
"""The convolutional classifiers of torchvision; stages are found by tracing them."""

BACKBONES = Registry(
    "backbone",
    {
        "conv": "routing.models.backbones:ConvBackbone",
        **dict.fromkeys(TORCHVISION_BACKBONES, "routing.models.backbones:TorchvisionBackbone"),
    },
)
"""Backbones of ``aacn``."""

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

STAGED_BACKBONES = Registry(
    "backbone",
    {
        "tiny4": "routing.models.hyperiqa.backbones:Tiny4",
        "swin_t": "routing.models.hyperiqa.backbones:Swin",
        "swin_s": "routing.models.hyperiqa.backbones:Swin",
        "swin_b": "routing.models.hyperiqa.backbones:Swin",
        **dict.fromkeys(RESNETS, "routing.models.hyperiqa.backbones:ResNet"),
    },
)
"""Backbones of ``hyperiqa``, whose later stages can be left out."""
