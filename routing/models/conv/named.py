"""``torchvision_net`` and ``timm_net``: classifiers by name; grey images are given to all three of their channels.

Shapes: B batch, S side of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from routing.data import DataInfo
from routing.errors import InputError
from routing.models.base import CountedPart
from routing.models.chain import Chain
from routing.models.conv.classifier import Classifier, knob_of
from routing.models.conv.cutting import cut
from routing.models.conv.section import TimmNetSection, TorchvisionNetSection
from routing.models.formula import multiply_adds
from routing.models.pretrained import (
    check_channels,
    keep_own_statistics,
    load_pretrained,
    one_line,
    renormalised,
)
from routing.models.timm_library import timm_state, timm_with
from routing.models.torchvision_library import torchvision_state


class NamedNet(Classifier):
    """A network of a library as one counted part per setting; ``chain`` cuts it into stages on request.

    Args:
        network: (B, 3, S, S) -> logits (B, classes).
        architecture: its name.
        resolutions: sides that training serves; empty: the images' own.
    """

    def __init__(self, network: nn.Module, architecture: str, resolutions: tuple[int, ...], info: DataInfo) -> None:
        check_channels(info)
        super().__init__(info, *knob_of(resolutions, info))
        self.network, self.architecture = network, architecture
        self.costs = [self._cost(self.side_at(setting)) for setting in range(len(self.settings))]
        self.dense_flops = self.expected_flops()

    def _cost(self, side: int) -> int:
        try:
            return multiply_adds(self.network, (3, side, side))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InputError(
                f"model.architecture {self.architecture} cannot take images of {side} pixels ({one_line(error)})"
            ) from None

    def entry(self, images: Tensor) -> Tensor:
        """Three channels."""
        return images.expand(-1, 3, -1, -1)

    def last_layer(self) -> nn.Module:
        """The last one that is linear or a convolution."""
        return self.network.get_submodule(_last_linear(self.network))

    def logits(self, images: Tensor, setting: int) -> Tensor:
        """The network's."""
        logits: Tensor = self.network(self.entry(images))
        return logits

    def chain(self, setting: int = -1) -> Chain:
        """The network cut where its resolutions end."""
        side = self.side_at(setting % len(self.settings))
        return cut(self.network, (3, side, side), self.architecture)

    def parts_at(self, setting: int) -> dict[str, CountedPart]:
        """The network as a whole."""
        side = self.side_at(setting)
        return {"network": CountedPart(self.network, (torch.zeros(1, 3, side, side),), self.costs[setting])}


class TorchvisionNet(NamedNet):
    """A convolutional classifier of torchvision."""

    def __init__(self, section: TorchvisionNetSection, info: DataInfo) -> None:
        from torchvision.models import get_model

        network = get_model(section.architecture, weights=None, num_classes=info.num_outputs)
        super().__init__(network, section.architecture, section.resolutions, info)

    def initialise(self, section: TorchvisionNetSection) -> None:  # type: ignore[override]
        """Load ``model.weights``; a classifier for another number of classes is left as it is."""
        load_pretrained(self, self.network, section, torchvision_state, _last_linear(self.network))


class TimmNet(NamedNet):
    """A classifier of timm, with images normalised by the mean and deviation that timm gives for it."""

    def __init__(self, section: TimmNetSection, info: DataInfo) -> None:
        network = _timm_network(section.architecture, info.num_outputs, info.input_size)
        super().__init__(network, section.architecture, section.resolutions, info)
        config = network.pretrained_cfg
        assert isinstance(config, dict)
        keep_own_statistics(self, info, (config["mean"], config["std"]))

    def depth_order(self) -> list[list[nn.Parameter]]:
        """The network's layers as timm groups them."""
        from timm.models import group_parameters

        matcher = getattr(self.network, "group_matcher", None)
        if matcher is None:
            return super().depth_order()
        parameters = dict(self.network.named_parameters())
        groups = group_parameters(self.network, matcher(coarse=False))
        return [[parameters[name] for name in groups[layer]] for layer in sorted(groups)]

    def entry(self, images: Tensor) -> Tensor:
        """Three channels, scaled as the network expects."""
        return super().entry(renormalised(self, images))

    def initialise(self, section: TimmNetSection) -> None:  # type: ignore[override]
        """Load ``model.weights``; a classifier for another number of classes is left as it is."""
        load_pretrained(self, self.network, section, timm_state, _last_linear(self.network))


def _timm_network(name: str, num_outputs: int, side: int) -> nn.Module:
    """Return timm's model without pretrained weights, made for images of ``side`` pixels where it must know."""
    timm = timm_with(name, "timm_net", "", "a classifier of timm, such as resnet18")
    try:
        try:
            network: nn.Module = timm.create_model(name, num_classes=num_outputs, img_size=side)
        except TypeError:  # a network for any size of image
            network = timm.create_model(name, num_classes=num_outputs)
    except Exception as error:  # timm has no type of its own for a tag it does not know, or for a size it cannot take
        raise InputError(f"model.architecture {name}: {one_line(error)}") from None
    return network


def _last_linear(network: nn.Module) -> str:
    """Return the prefix of the classifier's own weights: of the last layer that has classes for outputs."""
    names = [name for name, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    return names[-1]
