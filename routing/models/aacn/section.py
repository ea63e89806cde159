"""Configuration of the attention-augmented conv net, free of torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from routing.config.preprocessing import Preprocessing
from routing.config.registry import BACKBONES, TORCHVISION_BACKBONES
from routing.config.section import ModelSection, Section
from routing.errors import choices, nearest
from routing.models.patch.section import Widths
from routing.models.preprocessing import torchvision_preprocessing

OWN_BACKBONE = "conv"
DEFAULT_CHANNELS = (8, 16, 32)


def _known_backbone(name: str) -> str:
    if name not in BACKBONES:
        own = [known for known in BACKBONES if known not in TORCHVISION_BACKBONES]
        some = choices([*own, "resnet18", "resnet50", "mobilenet_v3_small", "efficientnet_b0", "..."])
        raise ValueError(f"unknown backbone '{name}'{nearest(name, BACKBONES)} (valid: {some})")
    return name


BackboneName = Annotated[str, AfterValidator(_known_backbone), Field(json_schema_extra={"enum": list(BACKBONES)})]
Channels = Annotated[Widths, Field(min_length=1)]


class AacnBackboneSection(Section):
    """The convolutional stages whose features are attended."""

    name: BackboneName = Field(
        default=OWN_BACKBONE, description="conv: our own; a torchvision conv net by name; or one of a plugin."
    )
    channels: Channels = Field(default=DEFAULT_CHANNELS, description="conv: channels of each stage.")
    weights: str | None = Field(
        default=None,
        max_length=4096,
        description="torchvision: its name of pretrained weights (DEFAULT: downloaded once), or a file.",
    )

    @model_validator(mode="after")
    def _keys_belong_to_the_backbone(self) -> AacnBackboneSection:
        if self.name == OWN_BACKBONE and self.weights is not None:
            raise ValueError(
                f"model.backbone.weights '{self.weights}': there are no pretrained weights of 'conv' "
                "(valid: a torchvision backbone, resnet18 say)"
            )
        if self.name in TORCHVISION_BACKBONES and self.channels != DEFAULT_CHANNELS:
            raise ValueError(f"model.backbone.channels belongs to backbone 'conv', not to '{self.name}'")
        return self


class AacnAttentionSection(Section):
    """Multi-head self-attention over the positions of every attended stage."""

    enabled: bool = Field(default=True, description="false: positions count the same and there is no attention branch.")
    stages: int | None = Field(
        default=None, ge=1, le=16, description="Number of last stages with attention; null: all."
    )
    width: int = Field(default=16, ge=1, le=65536, description="Width of the attention, d.")
    heads: int = Field(default=4, ge=1, le=256, description="Heads; must divide width.")
    grid: int = Field(default=5, ge=1, le=64, description="A stage is averaged down to grid x grid positions at most.")
    alpha: float = Field(default=0.5, ge=0, le=1e3, description="Weight of the attention branch's own loss.")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> AacnAttentionSection:
        if self.width % self.heads:
            valid = [n for n in range(1, self.width + 1) if self.width % n == 0 and n <= 64]
            raise ValueError(
                f"model.attention.heads {self.heads} does not divide model.attention.width {self.width} "
                f"(valid: {choices(valid)})"
            )
        return self


class AacnDecisionSection(Section):
    """The two heads; the one on attended features reads only the positions the attention map keeps."""

    width: int = Field(
        default=128, ge=0, le=65536, description="Each kept position passes a Linear-ReLU of this width; 0: none."
    )
    keep_ratio: float = Field(default=1.0, gt=0, le=1, description="Share of positions kept, in training as well.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout of what the two heads read, in training.")


class AacnSection(ModelSection):
    """Attention-augmented conv net: backbone, attention branch, decision branch."""

    builds: ClassVar[str] = "routing.models.aacn.model:AttentionAugmentedNet"

    name: Literal["aacn"] = "aacn"
    backbone: AacnBackboneSection = AacnBackboneSection()
    attention: AacnAttentionSection = AacnAttentionSection()
    decision: AacnDecisionSection = AacnDecisionSection()

    def preprocessing(self) -> Preprocessing | None:
        """torchvision's of the backbone's weights."""
        backbone = self.backbone
        return (
            torchvision_preprocessing(backbone.name, backbone.weights)
            if backbone.name in TORCHVISION_BACKBONES
            else None
        )

    @model_validator(mode="after")
    def _something_ranks_the_positions(self) -> AacnSection:
        if not self.attention.enabled and self.decision.keep_ratio < 1:
            raise ValueError(
                f"model.decision.keep_ratio {self.decision.keep_ratio:g} needs model.attention.enabled: without "
                "attention nothing says which positions to keep (valid: 1)"
            )
        stages = len(self.backbone.channels)
        if self.backbone.name == OWN_BACKBONE and (self.attention.stages or 1) > stages:
            raise ValueError(
                f"model.attention.stages {self.attention.stages}: the backbone has {stages} stages "
                f"(valid: 1 to {stages})"
            )
        return self
