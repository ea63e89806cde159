"""Backbones of ``hyperiqa``: stages that run one after another, so that the later ones can be left out.

``tiny4`` for a CPU, torchvision's Swin and ResNet for real images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.backbones import ConvBackbone
from routing.models.formula import multiply_adds, on_meta
from routing.models.hyperiqa.section import BackboneSection
from routing.models.layers import in_order
from routing.models.torchvision_library import load_backbone

SWIN_WINDOW = 7  # tokens per side of an attention window; torchvision's swin_t, swin_s, swin_b
SWIN_PATCH = 4  # pixels per side of a token of the first stage
SWIN_MLP_RATIO = 4


class StagedBackbone(nn.Module):
    """Stages run in order.

    ``channels`` are their output widths, ``sides`` of their output maps; ``input_shapes`` the shape of what each is
    given, for one image; ``multiply_adds`` the closed form of each, for one image.
    """

    channels: tuple[int, ...]
    sides: tuple[int, ...] = ()
    input_shapes: tuple[tuple[int, ...], ...]
    multiply_adds: tuple[int, ...]

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    @classmethod
    def of(cls, section: BackboneSection, channels_in: int, input_size: int, num_stages: int) -> StagedBackbone:
        """Return the first ``num_stages`` stages of a configuration's backbone, untrained.

        By default, its class is called with the number of channels, the side of the images and the widths wanted.
        """
        kind: Callable[..., StagedBackbone] = cls
        return kind(channels_in, input_size, section.widths[:num_stages])

    def depth_order(self) -> list[list[nn.Parameter]]:
        """Return the parameters of every layer, from the image on."""
        return in_order(self)

    def load_pretrained(self, source: str) -> None:
        """Load weights from a file or by a name; raises ``InputError`` where there are none."""
        raise InputError(f"model.backbone.weights '{source}': this backbone has no pretrained weights")

    def forward(self, images: Tensor, num_stages: int) -> list[Tensor]:
        """Return the features (B, C_s, H_s, W_s) of the first ``num_stages`` stages; the others do not run."""
        outputs = []
        for index in range(num_stages):
            images = self.stages[index](images)
            outputs.append(self.as_map(index, images))
        return outputs

    def as_map(self, stage: int, output: Tensor) -> Tensor:
        """Return what a stage (from 0) hands out as (B, C, H, W)."""
        return output


class Tiny4(StagedBackbone):
    """Convolutional stages, each halving the map."""

    def __init__(self, channels_in: int, input_size: int, widths: Sequence[int]) -> None:
        conv = ConvBackbone(channels_in, input_size, widths)
        super().__init__(list(conv.layers))
        self.channels, self.sides = tuple(widths), tuple(stage.size for stage in conv.stages)
        inputs = [(channels_in, input_size), *((stage.channels, stage.size) for stage in conv.stages)]
        self.input_shapes = tuple((1, channels, size, size) for channels, size in inputs[:-1])
        self.multiply_adds = tuple(
            9 * before * stage.channels * stage.size**2
            for (before, _), stage in zip(inputs[:-1], conv.stages, strict=True)
        )


class Swin(StagedBackbone):
    """torchvision's hierarchical transformer (arXiv:2103.14030); its maps are (B, H, W, C) inside.

    Args:
        name: swin_t, swin_s or swin_b.
        num_stages: stages to keep, from the first.
    """

    def __init__(self, name: str, input_size: int, num_stages: int) -> None:
        from torchvision.models import get_model

        network = get_model(name, weights=None)
        features, width = network.features, network.norm.normalized_shape[0]
        count = len(features) // 2
        super().__init__([nn.Sequential(features[2 * i], features[2 * i + 1]) for i in range(num_stages)])
        self.name = name
        self.channels = tuple(width // 2 ** (count - 1 - i) for i in range(num_stages))
        norms = [nn.LayerNorm(channels) for channels in self.channels]
        self.norms = nn.ModuleList(norms)  # of what is handed out; torchvision has one, after the last stage
        sides = self._sides(input_size, num_stages)
        self.sides = tuple(sides)
        self.input_shapes = (
            (1, 3, input_size, input_size),
            *((1, side, side, channels) for side, channels in zip(sides, self.channels, strict=True)),
        )[:num_stages]
        self.multiply_adds = tuple(
            self._stage_multiply_adds(index, side, len(features[2 * index + 1])) for index, side in enumerate(sides)
        )

    @classmethod
    def of(cls, section: BackboneSection, channels_in: int, input_size: int, num_stages: int) -> StagedBackbone:
        """Return the first stages of torchvision's; raises ``InputError`` for images of other than 3 channels."""
        if channels_in != 3:
            raise InputError(f"model.backbone.name '{section.name}' needs images of 3 channels, not {channels_in}")
        return cls(section.name, input_size, num_stages)

    def as_map(self, stage: int, output: Tensor) -> Tensor:
        """Return (B, H, W, C), normalised over C, as (B, C, H, W)."""
        normalised: Tensor = self.norms[stage](output)
        return normalised.permute(0, 3, 1, 2)

    @staticmethod
    def _sides(input_size: int, num_stages: int) -> list[int]:
        """Return the tokens per side of every stage's output."""
        sides = [input_size // SWIN_PATCH]
        while len(sides) < num_stages:
            sides.append((sides[-1] + 1) // 2)
        return sides

    def _stage_multiply_adds(self, stage: int, side: int, depth: int) -> int:
        """Return the products of a stage: patch embedding or merging, then its blocks of windowed attention.

        Attention runs on whole windows: its tokens are padded up to a multiple of the window.
        """
        width, tokens = self.channels[stage], side**2
        windowed = (-(-side // SWIN_WINDOW) * SWIN_WINDOW) ** 2
        entry = tokens * width * (3 * SWIN_PATCH**2 if stage == 0 else 2 * width)
        projections = windowed * 4 * width**2
        attention = windowed * SWIN_WINDOW**2 * 2 * width
        mlp = tokens * 2 * SWIN_MLP_RATIO * width**2
        return entry + depth * (projections + attention + mlp)

    def load_pretrained(self, source: str) -> None:
        """Load torchvision's weights by name or from a file, those of the classifier left out.

        Raises:
            InputError: weights that cannot be had, or of another model.
        """
        load_backbone(self, self.name, source, self._own_name, needed="stages.")

    def _own_name(self, name: str) -> str | None:
        """Return the name here of one of torchvision's tensors, None of one that is not used."""
        group, _, rest = name.partition(".")
        if group == "norm" and len(self.stages) == 4:
            return f"norms.3.{rest}"
        index, _, rest = rest.partition(".")
        if group != "features" or int(index) // 2 >= len(self.stages):
            return None
        return f"stages.{int(index) // 2}.{int(index) % 2}.{rest}"


class ResNet(StagedBackbone):
    """torchvision's residual network (arXiv:1512.03385), the backbone of HyperIQA; the stem belongs to stage 1."""

    def __init__(self, name: str, input_size: int, num_stages: int) -> None:
        from torchvision.models import get_model

        network = get_model(name, weights=None)
        stem = (network.conv1, network.bn1, network.relu, network.maxpool)
        layers = (network.layer1, network.layer2, network.layer3, network.layer4)[:num_stages]
        super().__init__([nn.Sequential(*stem, layers[0]), *layers[1:]])
        self.name = name
        shape: tuple[int, ...] = (3, input_size, input_size)
        inputs, costs, channels, sides = [], [], [], []
        for stage in self.stages:
            inputs.append((1, *shape))
            costs.append(multiply_adds(stage, shape))
            with torch.no_grad():
                shape = tuple(on_meta(stage)(torch.zeros(1, *shape, device="meta")).shape[1:])
            channels.append(shape[0])
            sides.append(shape[1])
        self.input_shapes, self.multiply_adds = tuple(inputs), tuple(costs)
        self.channels, self.sides = tuple(channels), tuple(sides)

    @classmethod
    def of(cls, section: BackboneSection, channels_in: int, input_size: int, num_stages: int) -> StagedBackbone:
        """Return the first stages of torchvision's; raises ``InputError`` for images of other than 3 channels."""
        if channels_in != 3:
            raise InputError(f"model.backbone.name '{section.name}' needs images of 3 channels, not {channels_in}")
        return cls(section.name, input_size, num_stages)

    def load_pretrained(self, source: str) -> None:
        """Load torchvision's weights by name or from a file, those of the classifier left out.

        Raises:
            InputError: weights that cannot be had, or of another model.
        """
        load_backbone(self, self.name, source, self._own_name)

    def _own_name(self, name: str) -> str | None:
        """Return the name here of one of torchvision's tensors, None of one that is not used."""
        group, _, rest = name.partition(".")
        if group in ("conv1", "bn1"):
            return f"stages.0.{('conv1', 'bn1').index(group)}.{rest}"
        if not group.startswith("layer") or int(group[5:]) > len(self.stages):
            return None
        return f"stages.{int(group[5:]) - 1}.{'4.' if group == 'layer1' else ''}{rest}"
