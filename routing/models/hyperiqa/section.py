"""Configuration of ``hyperiqa``, free of torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from routing.config.registry import FUSIONS, STAGED_BACKBONES
from routing.config.section import ModelSection, Section, registered

TINY_BACKBONE = "tiny4"
SWIN_BACKBONES = ("swin_t", "swin_s", "swin_b")
NUM_STAGES = 4

SWIN_HEAD = {"pool": 7, "hyper_channels": 112, "target_widths": (224, 112, 56)}
"""Defaults of the head on Swin, those of HyperIQA on a backbone of its size; the others are for ``tiny4``."""

BackboneName = Annotated[str, registered(STAGED_BACKBONES), Field(json_schema_extra={"enum": list(STAGED_BACKBONES)})]
FusionMode = Annotated[str, registered(FUSIONS), Field(json_schema_extra={"enum": list(FUSIONS)})]
Width = Annotated[int, Field(ge=1, le=8192)]


class BackboneSection(Section):
    """The network whose four stages are fused."""

    name: BackboneName = Field(
        default=TINY_BACKBONE, description="tiny4: four small conv stages; swin_*: torchvision's."
    )
    widths: tuple[Width, Width, Width, Width] = Field(
        default=(16, 32, 64, 96), description="Channels of the four stages of tiny4."
    )
    weights: str | None = Field(
        default=None, description="Swin: name of torchvision's weights (IMAGENET1K_V1) or a file; null: random."
    )

    @model_validator(mode="after")
    def _keys_fit_the_network(self) -> BackboneSection:
        if self.name == TINY_BACKBONE and self.weights is not None:
            raise ValueError(f"model.backbone.weights '{self.weights}' belong to swin_t, swin_s, swin_b, not to tiny4")
        if self.name in SWIN_BACKBONES and self.widths != type(self).model_fields["widths"].default:
            raise ValueError(f"model.backbone.widths belong to tiny4, not to {self.name}")
        return self


class FusionSection(Section):
    """How the stages become one map."""

    mode: FusionMode = Field(
        default="attention", description="single: the last of the scales only; the others use all of them."
    )
    scales: tuple[Annotated[int, Field(ge=1, le=NUM_STAGES)], ...] = Field(
        default=(1, 2, 3, 4), min_length=1, max_length=NUM_STAGES, description="Stages used, ascending, from 1."
    )
    hidden: int = Field(default=256, ge=1, le=8192, description="attention: hidden width of the weights' MLP.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="attention: dropout in the weights' MLP.")
    width: int = Field(default=64, ge=1, le=4096, description="cross_scale: width of a token.")
    heads: int = Field(default=4, ge=1, le=64, description="cross_scale: attention heads; must divide width.")

    @model_validator(mode="after")
    def _scales_fit_the_mode(self) -> FusionSection:
        if list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"model.fusion.scales {list(self.scales)} must be ascending, each stage once")
        if self.mode != "single" and len(self.scales) == 1:
            raise ValueError(
                f"model.fusion.mode '{self.mode}' weighs scales against each other and has only one, "
                f"{self.scales[0]} (valid: mode single, or at least two of model.fusion.scales)"
            )
        if self.width % self.heads:
            raise ValueError(f"model.fusion.heads {self.heads} does not divide model.fusion.width {self.width}")
        return self

    @property
    def used(self) -> tuple[int, ...]:
        """Stages that are fused, from 1."""
        return self.scales[-1:] if self.mode == "single" else self.scales


class HeadSection(Section):
    """The hyper-network and the per-image target network it writes."""

    pool: int = Field(default=4, ge=1, le=32, description="Side of the grid all stages are pooled to; on Swin 7.")
    hyper_channels: int = Field(default=32, ge=1, le=2048, description="Channels the hyper-network reads; on Swin 112.")
    target_widths: tuple[Width, ...] = Field(
        default=(32, 16, 8),
        min_length=1,
        max_length=8,
        description="Input and hidden widths of the target network; on Swin 224, 112, 56.",
    )

    @model_validator(mode="after")
    def _weights_fill_the_grid(self) -> HeadSection:
        for before, after in zip(self.target_widths, self.target_widths[1:], strict=False):
            if before * after % self.pool**2:
                raise ValueError(
                    f"model.head.target_widths {before} x {after} weights do not fill model.head.pool {self.pool} x "
                    f"{self.pool} cells evenly: {before * after} is no multiple of {self.pool**2}"
                )
        return self


class HyperIqaSection(ModelSection):
    """HyperIQA on a multi-scale backbone: a hyper-network writes a small quality network for every image."""

    builds: ClassVar[str] = "routing.models.hyperiqa.model:HyperIqa"

    tasks: ClassVar[tuple[str, ...]] = ("quality",)
    after_training: ClassVar[tuple[str, ...]] = ("crops",)

    name: Literal["hyperiqa"] = "hyperiqa"
    crop_size: int | None = Field(
        default=None, ge=16, le=2048, description="Side of the crops the network sees; null: the image's height."
    )
    crops: int = Field(default=1, ge=1, le=9, description="Crops per image, averaged, outside training.")
    fewer_scales_weight: float = Field(
        default=0.1,
        ge=0,
        le=100,
        description="Weight of a loss on a random number of the first scales only, which the knob needs; 0: none.",
    )
    backbone: BackboneSection = BackboneSection()
    fusion: FusionSection = FusionSection()
    head: HeadSection = HeadSection()

    @model_validator(mode="before")
    @classmethod
    def _head_as_large_as_its_backbone(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        backbone, head = values.get("backbone"), values.get("head", {})
        on_swin = isinstance(backbone, dict) and backbone.get("name") in SWIN_BACKBONES
        return {**values, "head": {**SWIN_HEAD, **head}} if on_swin and isinstance(head, dict) else values
