"""``hyperiqa``: quality of an image from the stages of a backbone, fused, then judged by a network written for it.

Compute knob: ``scales`` kept (the later stages do not run) and ``crops`` per image, whose qualities are averaged.
Shapes: B batch, S scales.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.config.registry import FUSIONS, STAGED_BACKBONES
from routing.data import DataInfo
from routing.errors import InputError
from routing.models.base import CountedPart, KnobValue, ModelOutput, VisionModel
from routing.models.hyperiqa.backbones import StagedBackbone
from routing.models.hyperiqa.crops import CROP_PLACES, crop, crop_each, random_places, training_view
from routing.models.hyperiqa.fusion import Fusion
from routing.models.hyperiqa.hyper_head import HyperHead, local_distortion
from routing.models.hyperiqa.section import FusionSection, HyperIqaSection
from routing.models.layers import then_the_rest
from routing.models.pretrained import renormalised
from routing.models.torchvision_library import keep_statistics

KNOB_CROPS = (1, 2, 3, 5, 9)
_KNOB = re.compile(r"^scales=(\d+),crops=(\d+)$")


def build_fusion(section: FusionSection, channels: Sequence[int]) -> Fusion:
    """Return the fusion of a configuration for scales of these widths."""
    fusion: Fusion = FUSIONS.get(section.mode).of(section, channels)
    return fusion


class StageFeatures(NamedTuple):
    """``pooled``: every scale (B, C_s, P, P); ``content``: the piece (B, D) of the content vector of every stage."""

    pooled: list[Tensor]
    content: list[Tensor]


class _Gathered(nn.Module):
    """A fusion that takes its scales as separate arguments, as the tracer wants them."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = self.fusion(features)
        return result


class HyperIqa(VisionModel):
    """Backbone, fusion, hyper-network.

    ``last_fusion_weights`` (B, S) are those of the last forward pass, without gradients, for analysis.
    """

    def __init__(self, section: HyperIqaSection, info: DataInfo) -> None:
        super().__init__()
        self.crop_size = section.crop_size or info.short_side
        self._check_crops(section, info)
        self.stages_used, self.pool = section.fusion.used, section.head.pool
        self.fewer_scales_weight = section.fewer_scales_weight if len(self.stages_used) > 1 else 0.0
        backbone: type[StagedBackbone] = STAGED_BACKBONES.get(section.backbone.name)
        self.backbone = backbone.of(section.backbone, info.channels, self.crop_size, self.stages_used[-1])
        keep_statistics(self, section.backbone.name, section.backbone.weights, info)
        channels = [self.backbone.channels[stage - 1] for stage in self.stages_used]
        self.fusion = build_fusion(section.fusion, channels)
        head = section.head
        self.has_distortion = head.mode == "hyperiqa"
        self.head = HyperHead(
            self.fusion.width,
            head.pool,
            head.hyper_channels,
            head.target_widths,
            head.reductions,
            own_content=not self.has_distortion,
        )
        if self.has_distortion:
            self.distortion = local_distortion(self.backbone.channels, head.target_widths[0])
        self.scales, self.crops = len(self.stages_used), section.crops
        self.random_crops, self.crop_seed = section.crop_places == "random", section.crop_seed
        self.last_fusion_weights: Tensor | None = None
        self._crop_choices = KNOB_CROPS if self.crop_size < max(info.input_size, info.input_width) else (1,)
        self.knob = "scales,crops" if len(self._combinations()) > 1 else None

    def _check_crops(self, section: HyperIqaSection, info: DataInfo) -> None:
        if self.crop_size > info.short_side:
            key = "input_size" if info.short_side == info.input_size else "input_width"
            raise InputError(f"model.crop_size {self.crop_size} is larger than dataset.{key} {info.short_side}")
        if section.crops > 1 and self.crop_size == max(info.input_size, info.input_width):
            raise InputError(
                f"model.crops {section.crops}: all crops are the whole image, since model.crop_size is "
                f"dataset.input_size {info.input_size} (valid: crops 1, or a smaller crop_size)"
            )

    def depth_order(self) -> list[list[nn.Parameter]]:
        """The backbone's layers, then fusion and head at one rate."""
        return then_the_rest(self.backbone.depth_order(), self)

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict; one random view per image in training, the average over crops outside."""
        if self.training:
            return self._train(training_view(images, self.crop_size))
        return self._average(images, self.scales, self.crops)

    def _train(self, images: Tensor) -> ModelOutput:
        scales = len(self.stages_used)
        features = self._features(images, scales)
        output = self._output(*self._judge(features, scales), scales, 1)
        if self.fewer_scales_weight:
            kept = int(torch.randint(1, scales, ()))
            output.auxiliary["fewer_scales"] = (self.fewer_scales_weight, self._judge(features, kept)[0].float())
        return output

    def _average(self, images: Tensor, scales: int, crops: int) -> ModelOutput:
        judged = [self._judge(self._features(view, scales), scales) for view in self._views(images, crops)]
        quality_B = torch.stack([quality for quality, _ in judged]).mean(0)
        weights_BS = torch.stack([weights for _, weights in judged]).mean(0)
        return self._output(quality_B, weights_BS, scales, crops)

    def _views(self, images: Tensor, count: int) -> Iterator[Tensor]:
        """Yield ``count`` crops (B, C, S, S) of every image: of the grid, or at random places of its own."""
        if self.random_crops and self.crop_size < max(images.shape[2:]):
            places = random_places(images, count, self.crop_seed)
            yield from (crop_each(images, self.crop_size, of_images) for of_images in places)
        else:
            yield from (crop(images, self.crop_size, place) for place in CROP_PLACES[:count])

    def _features(self, images: Tensor, scales: int) -> StageFeatures:
        """Return the first ``scales`` scales, and what every stage that runs for them adds to the content vector."""
        stages = self.stages_used[:scales]
        outputs = self.backbone(renormalised(self, images), stages[-1])
        pooled = [F.adaptive_avg_pool2d(outputs[stage - 1], self.pool) for stage in stages]
        modules = self.distortion[: len(outputs)] if self.has_distortion else ()
        return StageFeatures(pooled, [module(output) for module, output in zip(modules, outputs, strict=False)])

    def _judge(self, features: StageFeatures, scales: int) -> tuple[Tensor, Tensor]:
        """Return quality (B,) and fusion weights (B, S), from the first ``scales`` scales alone."""
        fused, weights_BS = self.fusion(features.pooled[:scales])
        if not self.has_distortion:
            return self.head(fused), weights_BS
        content_BD = torch.cat(features.content[: self.stages_used[scales - 1]], dim=1)
        content_BD = F.pad(content_BD, (0, self.head.target_widths[0] - content_BD.shape[1]))
        return self.head(fused, content_BD), weights_BS

    def _output(self, quality_B: Tensor, weights_BS: Tensor, scales: int, crops: int) -> ModelOutput:
        return ModelOutput(
            prediction=quality_B.float(),
            metrics=self._remember(weights_BS),
            units_executed={
                name: torch.full((len(quality_B),), count) for name, count in self._units(scales, crops).items()
            },
        )

    def _remember(self, weights_BS: Tensor) -> dict[str, float | Tensor]:
        """Keep the weights for analysis; return the mean weight of every stage."""
        if torch.compiler.is_compiling():  # a traced graph holds neither state nor numbers for a history
            return {}
        self.last_fusion_weights = weights_BS.detach().float()
        means = self.last_fusion_weights.mean(0).unbind()
        return {f"fusion_weight_{stage}": mean for stage, mean in zip(self.stages_used, means, strict=True)}

    def fusion_weights(self, images: Tensor) -> dict[int, Tensor]:
        """Return the weight (B,) of every stage in use."""
        self(images)
        assert self.last_fusion_weights is not None
        return dict(zip(self.stages_used, self.last_fusion_weights.unbind(1), strict=True))

    def _units(self, scales: int, crops: int) -> dict[str, int]:
        """Return how often each part runs for one image."""
        deepest = self.stages_used[scales - 1]
        units = {f"stage_{stage}": crops * (stage <= deepest) for stage in range(1, self.stages_used[-1] + 1)}
        units |= {f"fusion_{kept}": crops * (kept == scales) for kept in range(1, len(self.stages_used) + 1)}
        if self.has_distortion:
            units |= {f"content_{stage}": units[f"stage_{stage}"] for stage in range(1, self.stages_used[-1] + 1)}
        return units | {"head": crops}

    def loss_terms(self) -> tuple[str, ...]:
        """The task's, and that of fewer scales where it has a weight."""
        return ("task", "fewer_scales") if self.fewer_scales_weight else ("task",)

    def nominal_units(self) -> dict[str, float]:
        """Known exactly: nothing depends on the image."""
        return {name: float(count) for name, count in self._units(self.scales, self.crops).items()}

    def initialise(self, section: HyperIqaSection) -> None:  # type: ignore[override]
        """Load the backbone's weights."""
        if section.backbone.weights is not None:
            self.backbone.load_pretrained(section.backbone.weights)

    def counted_parts(self) -> dict[str, CountedPart]:
        """Stages, their local distortion, one fusion per number of scales kept, head; the unit of each is one crop."""
        parts: dict[str, CountedPart] = {}
        for index, module in enumerate(self.backbone.stages):
            example = torch.zeros(self.backbone.input_shapes[index])
            parts[f"stage_{index + 1}"] = CountedPart(module, (example,), self.backbone.multiply_adds[index], None)
        pooled = [torch.zeros(1, channels, self.pool, self.pool) for channels in self.fusion.channels]
        for kept in range(1, len(pooled) + 1):
            cost = self.fusion.multiply_adds(kept, self.pool)
            parts[f"fusion_{kept}"] = CountedPart(_Gathered(self.fusion), tuple(pooled[:kept]), cost, None)
        for index, module in enumerate(self.distortion if self.has_distortion else ()):
            side = self.backbone.sides[index]
            example = torch.zeros(1, self.backbone.channels[index], side, side)
            parts[f"content_{index + 1}"] = CountedPart(module, (example,), module.multiply_adds(side), None)
        inputs: tuple[Tensor, ...] = (torch.zeros(1, self.fusion.width, self.pool, self.pool),)
        if self.has_distortion:
            inputs += (torch.zeros(1, self.head.target_widths[0]),)
        return parts | {"head": CountedPart(self.head, inputs, self.head.multiply_adds(), None)}

    def _combinations(self) -> list[tuple[int, int]]:
        """Return the values of the knob: fewer scales only where they were used in training."""
        every = len(self.stages_used)
        scales = range(1, every + 1) if self.fewer_scales_weight else [every]
        return [(kept, crops) for kept in scales for crops in sorted({*self._crop_choices, self.crops})]

    @property
    def default_knob_value(self) -> KnobValue | None:
        """Scales and crops in use."""
        return None if self.knob is None else f"scales={self.scales},crops={self.crops}"

    def knob_values(self, images: Sequence[Tensor]) -> list[KnobValue]:
        """Return every combination of scales and crops."""
        return [f"scales={scales},crops={crops}" for scales, crops in self._combinations()]

    def along_knob(self, images: Tensor, values: Sequence[KnobValue]) -> Iterator[ModelOutput]:
        """Yield one output per value; no crop is judged twice by the same scales."""
        wanted = [self._parse(value) for value in values]
        judged: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for place, view in enumerate(self._views(images, max((crops for _, crops in wanted), default=0))):
            needed = sorted({scales for scales, crops in wanted if crops > place})
            features = self._features(view, needed[-1])
            for scales in needed:
                judged[scales, place] = self._judge(features, scales)
        for scales, crops in wanted:
            pairs = [judged[scales, place] for place in range(crops)]
            quality_B, weights_BS = (torch.stack(parts).mean(0) for parts in zip(*pairs, strict=True))
            yield self._output(quality_B, weights_BS, scales, crops)

    def check_knob(self, value: KnobValue) -> None:
        """``scales=K,crops=N`` within what the model was trained for."""
        self._parse(value)

    def set_knob(self, value: KnobValue) -> None:
        """Make ``scales=K,crops=N`` the default."""
        self.scales, self.crops = self._parse(value)

    def _parse(self, value: KnobValue) -> tuple[int, int]:
        match = _KNOB.match(str(value).replace(" ", ""))
        if self.knob is None:
            raise InputError(
                f"knob value '{value}': this model has no compute knob; it needs model.crop_size below "
                "dataset.input_size, or model.fewer_scales_weight above 0 and several scales"
            )
        wanted = None if match is None else (int(match[1]), int(match[2]))
        every, most = len(self.stages_used), max(self.crops, *self._crop_choices)
        fewest = 1 if self.fewer_scales_weight else every
        if wanted is None or not (fewest <= wanted[0] <= every and 1 <= wanted[1] <= most):
            raise InputError(
                f"knob value '{value}' is not scales=K,crops=N with K in {fewest}..{every} and N in 1..{most}"
            )
        return wanted
