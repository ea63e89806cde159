"""``ConvNetwork``: the network alone, at one width or, slimmable, at several that share their weights.

    image -> stem -> stages of [conv - max pool - norm - GELU, then (conv - norm - GELU) ...] -> global pool -> linear

A slimmable network (arXiv 1812.08928) uses the first channels of every layer and keeps batch norms of its own for each
width; ``setting`` numbers the widths. The stem is part of the first stage.

Shapes: B batch, C channels, S side of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.chain import Chain, Stage

Widths = tuple[int, ...]
"""Channels of one layer, one value per setting."""


class ConvUnit(nn.Module):
    """Convolution, max pooling where asked for, batch norm, GELU; ``adds_input`` makes it a residual."""

    def __init__(
        self, widths_in: Widths, widths_out: Widths, kernel: int, *, pools: bool = False, adds_input: bool = False
    ) -> None:
        super().__init__()
        self.widths_in, self.widths_out = widths_in, widths_out
        self.kernel, self.pools, self.adds_input = kernel, pools, adds_input
        self.conv = nn.Conv2d(max(widths_in), max(widths_out), kernel, padding=kernel // 2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths_out)

    def forward(self, maps: Tensor, setting: int) -> Tensor:
        """Return maps (B, C_out, S, S), S halved where it pools."""
        weight = self.conv.weight[: self.widths_out[setting], : self.widths_in[setting]]
        out = F.conv2d(maps, weight, padding=self.kernel // 2)
        if self.pools:
            out = F.max_pool2d(out, 2)
        out = F.gelu(self.norms[setting](out))
        return maps + out if self.adds_input else out

    def multiply_adds(self, side: int, setting: int) -> int:
        """Return the closed form of one image whose map is ``side`` wide, before pooling."""
        return side**2 * self.kernel**2 * self.widths_in[setting] * self.widths_out[setting]


class Stem(nn.Module):
    """The first convolution without padding, and GELU."""

    def __init__(self, channels_in: int, widths: Widths, kernel: int, stride: int) -> None:
        super().__init__()
        self.widths, self.channels_in, self.kernel, self.stride = widths, channels_in, kernel, stride
        self.conv = nn.Conv2d(channels_in, max(widths), kernel, stride=stride)

    def forward(self, images: Tensor, setting: int) -> Tensor:
        """Return maps (B, C, S, S)."""
        width = self.widths[setting]
        assert self.conv.bias is not None
        return F.gelu(F.conv2d(images, self.conv.weight[:width], self.conv.bias[:width], stride=self.stride))

    def side(self, image_side: int) -> int:
        """Return S."""
        return (image_side - self.kernel) // self.stride + 1

    def multiply_adds(self, side: int, setting: int) -> int:
        """Return the closed form of one image whose map is ``side`` wide."""
        return side**2 * self.kernel**2 * self.channels_in * self.widths[setting]


class ConvHead(nn.Module):
    """Global pooling and a linear layer on the channels in use."""

    def __init__(self, widths: Widths, num_outputs: int, pool: str) -> None:
        super().__init__()
        self.widths, self.pool = widths, pool
        self.linear = nn.Linear(max(widths), num_outputs)

    def forward(self, maps: Tensor, setting: int) -> Tensor:
        """Return logits (B, classes)."""
        vector = maps.amax(dim=(2, 3)) if self.pool == "max" else maps.mean(dim=(2, 3))
        return F.linear(vector, self.linear.weight[:, : self.widths[setting]], self.linear.bias)


class InSequence(nn.Module):
    """Layers of a network in order, each at the same setting: a link of a chain, in the network's own mode."""

    def __init__(self, layers: Sequence[nn.Module], setting: int) -> None:
        super().__init__()
        self.layers, self.setting = nn.ModuleList(layers), setting
        self.training = layers[0].training

    def forward(self, maps: Tensor) -> Tensor:
        """Return what the last layer gives."""
        for layer in self.layers:
            maps = layer(maps, self.setting)
        return maps


class ConvNetwork(nn.Module):
    """A stem, stages and a head.

    Args:
        channels: of the image.
        stem: widths, kernel and stride of the first convolution.
        widths: per stage, one value per setting.
        depth: convolutions per stage.
        kernel: side of their kernels, odd.
        skips: whether a convolution that keeps its shape is a residual.
        num_outputs: classes.
        pool: ``max`` or ``mean``.
    """

    def __init__(
        self,
        *,
        channels: int,
        stem: tuple[Widths, int, int],
        widths: Sequence[Widths],
        depth: int,
        kernel: int,
        skips: bool,
        num_outputs: int,
        pool: str,
    ) -> None:
        super().__init__()
        self.channels, self.num_outputs = channels, num_outputs
        self.stem = Stem(channels, *stem)
        self.stages = nn.ModuleList()
        before = stem[0]
        for width in widths:
            units = [ConvUnit(before, width, kernel, pools=True)]
            units += [ConvUnit(width, width, kernel, adds_input=skips) for _ in range(depth - 1)]
            self.stages.append(nn.ModuleList(units))
            before = width
        self.head = ConvHead(before, num_outputs, pool)

    def forward(self, images: Tensor, setting: int) -> Tensor:
        """Return logits (B, classes) at one setting."""
        maps = self.stem(images, setting)
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            for unit in stage:
                maps = unit(maps, setting)
        logits: Tensor = self.head(maps, setting)
        return logits

    def chain(self, image_side: int, setting: int) -> Chain:
        """Return the network at one setting as a chain, for images of ``image_side`` pixels.

        Raises:
            InputError: a stage would leave nothing of these images.
        """
        links: list[Stage] = []
        shape: tuple[int, ...] = (self.channels, image_side, image_side)
        side = self.stem.side(image_side)
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            if side < 2:
                raise InputError(
                    f"images of {image_side} pixels are too small for the {len(self.stages)} stages of model.widths: "
                    f"stage {index + 1} would halve {max(side, 0)} (valid: at most {index} stages here)"
                )
            layers, cost = ([self.stem], self.stem.multiply_adds(side, setting)) if index == 0 else ([], 0)
            for unit in stage:
                assert isinstance(unit, ConvUnit)
                cost += unit.multiply_adds(side, setting)
                side = side // 2 if unit.pools else side
            out = (unit.widths_out[setting], side, side)
            links.append(Stage(InSequence([*layers, *stage], setting), shape, out, cost))
            shape = out
        head = Stage(InSequence([self.head], setting), shape, (self.num_outputs,), shape[0] * self.num_outputs)
        return Chain(tuple(links), head)
