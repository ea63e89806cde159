"""What dense convolutional classifiers share: a chain of stages, and knobs that make one training serve several costs.

The knob is the side of the images (``resolutions``) or the share of all channels (``width_fractions`` of conv_net).
Training follows the sandwich rule (arXiv 1903.05134): the largest setting, the smallest, and one between at random.

Shapes: B batch, C channels, S side of the image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.data import DataInfo
from routing.errors import InputError, choices
from routing.models.base import CountedPart, KnobValue, ModelOutput, VisionModel
from routing.models.chain import Chain
from routing.models.layers import around_blocks, in_order


class Classifier(VisionModel):
    """Base of dense classifiers.

    Args:
        info: of the data.
        knob: name of the knob that ``settings`` are values of, or None for a single setting.
        settings: values of the knob, ascending; the last is the default.
    """

    network: nn.Module

    def __init__(self, info: DataInfo, knob: str | None, settings: Sequence[float]) -> None:
        super().__init__()
        self.image_shape, self.num_outputs = (info.channels, info.input_size, info.input_size), info.num_outputs
        self.knob, self.settings = knob, tuple(settings)
        self.setting = len(self.settings) - 1

    @abstractmethod
    def logits(self, images: Tensor, setting: int) -> Tensor:
        """Return logits (B, classes) of normalised images at a setting."""

    @abstractmethod
    def chain(self, setting: int = -1) -> Chain:
        """Return the network as a chain at a setting, the largest by default, behind ``entry``."""

    @abstractmethod
    def last_layer(self) -> nn.Module:
        """Return the module of the network that gives the logits."""

    def parts(self) -> dict[str, list[nn.Module | nn.Parameter]]:
        """``head``, the last layer, and ``backbone``, all others."""
        found = around_blocks(self.network, [self.last_layer()])
        return {"backbone": [*found["embedding"], *found["head"]], "head": found["blocks"]}

    def depth_order(self) -> list[list[nn.Parameter]]:
        """The network's layers: one block or convolution each."""
        return in_order(self.network)

    def side_at(self, setting: int) -> int:
        """Return the side of the images in pixels that the network sees at a setting."""
        return int(self.settings[setting]) if self.knob == "resolution" else self.image_shape[1]

    def resized(self, images: Tensor, setting: int) -> Tensor:
        """Return the images at the side of a setting; where that is their own, untouched."""
        side = self.side_at(setting)
        if images.shape[-1] == side:
            return images
        return F.interpolate(images, (side, side), mode="bilinear", antialias=side < images.shape[-1])

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict at the default setting; in training also at the smallest and at one between."""
        output = self.at(images, self.setting if not self.training else len(self.settings) - 1)
        if self.training and len(self.settings) > 1:
            for name, setting in zip(self._further_terms(), self._further_settings(), strict=True):
                output.auxiliary[name] = (1.0, self.at(images, setting).prediction)
        return output

    def _further_terms(self) -> tuple[str, ...]:
        """Return the names of the losses at further settings of a step of training: the smallest, one at random."""
        return tuple(f"{which}_{self.knob}" for which in ("smallest", "random"))[: len(self.settings) - 1]

    def _further_settings(self) -> tuple[int, ...]:
        """Return the settings that these losses are taken at."""
        between = len(self.settings) - 2
        return (0, *((1 + int(torch.randint(between, ())),) if between > 0 else ()))

    def at(self, images: Tensor, setting: int) -> ModelOutput:
        """Predict at one setting."""
        logits = self.logits(self.resized(images, setting), setting).float()
        if self.knob is None:
            return ModelOutput(logits)
        one = torch.ones(logits.shape[0], dtype=torch.int64)
        return ModelOutput(logits, units_executed=dict.fromkeys(self._named_parts(setting), one))

    def parts_at(self, setting: int) -> dict[str, CountedPart]:
        """Return the modules that an image passes at a setting: every stage and the head."""
        return self.chain(setting).counted_parts()

    def _named_parts(self, setting: int) -> dict[str, CountedPart]:
        """Return the parts of a setting under names that tell them from those of other settings."""
        parts = self.parts_at(setting)
        if self.knob is None:
            return parts
        value = f"{self.knob}={self.settings[setting]:g}"
        return {
            f"{name}@{value}": CountedPart(part.module, part.inputs, part.per_unit, None)
            for name, part in parts.items()
        }

    def counted_parts(self) -> dict[str, CountedPart]:
        """Return the modules that an image passes at the default setting."""
        return self._named_parts(self.setting)

    def executed_parts(self, units_executed: Mapping[str, Any]) -> dict[str, CountedPart]:
        """Return the parts of the settings that ran."""
        if self.knob is None:
            return self.counted_parts()
        every = (self._named_parts(setting) for setting in range(len(self.settings)))
        return {name: part for parts in every for name, part in parts.items() if name in units_executed}

    def nominal_units(self) -> dict[str, float]:
        """Return one image through every part."""
        return {} if self.knob is None else dict.fromkeys(self.counted_parts(), 1.0)

    def loss_terms(self) -> tuple[str, ...]:
        """The task's at the largest setting, and those of the further settings of a step."""
        return ("task", *self._further_terms())

    @property
    def default_knob_value(self) -> KnobValue | None:
        """The setting in use."""
        return None if self.knob is None else self.settings[self.setting]

    def knob_values(self, images: Sequence[Tensor]) -> list[KnobValue]:
        """Return every setting but the default."""
        return [value for index, value in enumerate(self.settings) if index != self.setting]

    def along_knob(self, images: Tensor, values: Sequence[KnobValue]) -> Iterator[ModelOutput]:
        """Yield one output per setting; nothing is shared between them."""
        for value in values:
            yield self.at(images, self._index(value))

    def check_knob(self, value: KnobValue) -> None:
        """One of the settings it is trained at."""
        super().check_knob(value)
        self._index(value)

    def set_knob(self, value: KnobValue) -> None:
        """Make a setting the default."""
        self.check_knob(value)
        self.setting = self._index(value)

    def _index(self, value: KnobValue) -> int:
        if value not in self.settings:
            raise InputError(
                f"evaluation.knob_value {value}: this model is not trained at that {self.knob} "
                f"(valid: {choices([f'{setting:g}' for setting in self.settings])})"
            )
        return self.settings.index(float(value))


def knob_of(resolutions: Sequence[int], info: DataInfo) -> tuple[str | None, tuple[float, ...]]:
    """Return name and values of the knob of a model that only knows resolutions."""
    if not resolutions:
        return None, (float(info.input_size),)
    if max(resolutions) > info.input_size:
        raise InputError(
            f"model.resolutions {list(resolutions)}: more pixels than dataset.input_size {info.input_size} hold "
            f"(valid: 4 to {info.input_size})"
        )
    return "resolution", tuple(float(side) for side in sorted(set(resolutions)))
