"""Convolutional backbones that give the features of every stage: our own, or a torchvision classifier by name.

Shapes: images (B, C, H, W) -> one map (B, C_s, H_s, W_s) per stage, from the finest to the coarsest.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.formula import multiply_adds, on_meta
from routing.models.layers import in_order
from routing.models.pretrained import one_line
from routing.models.torchvision_library import load_backbone, network_on_meta

_CLASSIFIER = ("classifier", "avgpool", "adaptive_avg_pool2d", "mean", "flatten", "fc")
"""How torchvision names the first node after the last feature map."""


@dataclass(frozen=True)
class Stage:
    """Shape of a stage's features: ``channels`` x ``size`` x ``size``."""

    channels: int
    size: int


class Backbone(nn.Module, ABC):
    """Base of every backbone. ``stages`` are their shapes; ``multiply_adds`` the closed form of one image."""

    stages: tuple[Stage, ...]
    multiply_adds: int

    @classmethod
    def of(cls, name: str, channels_in: int, input_size: int, channels: Sequence[int]) -> Backbone:
        """Return the backbone of a configuration: by default its class is called with all but the name.

        Args:
            channels: of every stage, as the configuration gives them; not every backbone has a choice.
        """
        kind: Callable[..., Backbone] = cls
        return kind(channels_in, input_size, channels)

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the features of every stage."""

    def depth_order(self) -> list[list[nn.Parameter]]:
        """Return the parameters of every layer, from the image on."""
        return in_order(self)

    def load_pretrained(self, source: str) -> None:
        """Load weights from a file or by a name; raises ``InputError`` where there are none."""
        raise InputError(f"model.backbone.weights '{source}': this backbone has no pretrained weights")


class ConvBackbone(Backbone):
    """One 3x3 convolution of stride 2, batch norm and ReLU per stage."""

    def __init__(self, channels_in: int, input_size: int, channels: Sequence[int]) -> None:
        super().__init__()
        layers, stages = [], []
        size, self.multiply_adds = input_size, 0
        for width in channels:
            size = (size + 1) // 2
            conv = nn.Conv2d(channels_in, width, 3, stride=2, padding=1, bias=False)
            layers.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()))
            stages.append(Stage(width, size))
            self.multiply_adds += 9 * channels_in * width * size**2
            channels_in = width
        self.layers, self.stages = nn.ModuleList(layers), tuple(stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the features of every stage."""
        features = []
        for layer in self.layers:
            images = layer(images)
            features.append(images)
        return tuple(features)


class TorchvisionBackbone(Backbone):
    """A torchvision classifier without its classifier; a grey image is given to all three of its channels.

    Its stages are the last maps of the four coarsest resolutions above 1 x 1.
    """

    MAX_STAGES = 4

    @classmethod
    def of(cls, name: str, channels_in: int, input_size: int, channels: Sequence[int]) -> Backbone:
        """Return the classifier of this name, whose channels are what they are."""
        return cls(name, channels_in, input_size)

    def __init__(self, name: str, channels_in: int, input_size: int) -> None:
        super().__init__()
        if channels_in not in (1, 3):
            raise InputError(f"model.backbone.name '{name}' takes images of 1 or 3 channels; these have {channels_in}")
        from torchvision.models import get_model
        from torchvision.models.feature_extraction import create_feature_extractor

        self.name, model = name, get_model(name, weights=None)
        try:
            found = _last_of_each_size(model, input_size)
        except RuntimeError as error:  # a pooling or convolution that leaves nothing
            raise InputError(
                f"model.backbone.name '{name}': images of {input_size} pixels are too small for it ({one_line(error)})"
            ) from None
        if not found:
            raise InputError(f"model.backbone.name '{name}': no stage is left of images of {input_size} pixels")
        self.stages = tuple(stage for _, stage in found)
        self.layers = create_feature_extractor(model, {node: str(i) for i, (node, _) in enumerate(found)})
        self.multiply_adds = multiply_adds(self.layers, (3, input_size, input_size))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the features of every stage."""
        return tuple(self.layers(images.expand(-1, 3, -1, -1)).values())

    def depth_order(self) -> list[list[nn.Parameter]]:
        """The layers of the whole network, as far as they are kept: the graph of features has no blocks."""
        whole = network_on_meta(self.name)
        names = {id(parameter): name for name, parameter in whole.named_parameters()}
        kept = dict(self.layers.named_parameters())
        layers = ([kept[names[id(p)]] for p in layer if names[id(p)] in kept] for layer in in_order(whole))
        return [layer for layer in layers if layer]

    def load_pretrained(self, source: str) -> None:
        """Load weights by torchvision's name or from a file; those of the classifier are left out.

        Raises:
            InputError: weights that cannot be had, or of another model.
        """
        load_backbone(self.layers, self.name, source)


def _last_of_each_size(model: nn.Module, input_size: int) -> list[tuple[str, Stage]]:
    """Return graph node and shape of the last map of each resolution, at most four, coarsest last."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    in_training, in_evaluation = get_graph_node_names(model)
    body = itertools.takewhile(lambda node: not node.startswith(_CLASSIFIER), in_evaluation)
    nodes = [node for node in body if node in set(in_training)]
    everything = create_feature_extractor(on_meta(model), {node: node for node in nodes})
    outputs = everything(torch.zeros(1, 3, input_size, input_size, device="meta"))
    last: dict[int, tuple[str, Stage]] = {}
    for node, value in outputs.items():
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[2] == value.shape[3] and node != nodes[0]:
            size = value.shape[2]
            last[size] = (node, Stage(value.shape[1], size))
    ordered = [last[size] for size in sorted(last, reverse=True) if 1 < size < input_size]
    return ordered[-TorchvisionBackbone.MAX_STAGES :]
