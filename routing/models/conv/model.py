"""``conv_net``: this project's dense baseline for photographs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from routing.data import DataInfo
from routing.models.chain import Chain
from routing.models.conv.classifier import Classifier, knob_of
from routing.models.conv.network import ConvNetwork, Widths
from routing.models.conv.section import ConvNetSection


class ConvNet(Classifier):
    """Stem, stages, global pooling, a linear head; every image costs the same.

    Its settings are sides of the images or fractions of all channels; batch norms are kept for each of them apart.
    """

    network: ConvNetwork

    def __init__(self, section: ConvNetSection, info: DataInfo) -> None:
        knob, settings = knob_of(section.resolutions, info)
        fractions: tuple[float, ...] = (1.0,) * len(settings)
        if section.width_fractions:
            fractions = tuple(sorted(set(section.width_fractions)))
            knob, settings = "width", fractions
        super().__init__(info, knob, settings)

        def widths(channels: int) -> Widths:
            return tuple(max(1, round(channels * section.width_multiplier * fraction)) for fraction in fractions)

        self.network = ConvNetwork(
            channels=info.channels,
            stem=(widths(section.stem.channels), section.stem.kernel, section.stem.stride),
            widths=[widths(channels) for channels in section.widths],
            depth=section.depth,
            kernel=section.kernel,
            skips=section.skip_connections,
            num_outputs=info.num_outputs,
            pool=section.pool,
        )
        for setting in range(len(settings)):
            self.chain(setting)  # images too small for the stages are refused before training
        self.dense_flops = self.expected_flops()

    def entry(self, images: Tensor) -> Tensor:
        """Channels last, the faster layout of convolutions."""
        return images.contiguous(memory_format=torch.channels_last)

    def last_layer(self) -> nn.Module:
        """Pooling and linear layer."""
        return self.network.head

    def logits(self, images: Tensor, setting: int) -> Tensor:
        """The network's."""
        logits: Tensor = self.network(self.entry(images), setting)
        return logits

    def chain(self, setting: int = -1) -> Chain:
        """The network's stages."""
        setting %= len(self.settings)
        return self.network.chain(self.side_at(setting), setting)
