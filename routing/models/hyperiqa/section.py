"""Configuration of ``hyperiqa``, free of torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from routing.config.registry import FUSIONS, RESNETS, STAGED_BACKBONES
from routing.config.section import ModelSection, Section, registered

TINY_BACKBONE = "tiny4"
SWIN_BACKBONES = ("swin_t", "swin_s", "swin_b")
NUM_STAGES = 4
GRID_CROPS = 9
CONTENT_OF_STAGES = 16 * (NUM_STAGES - 1)

PAPER_HEAD = {"mode": "hyperiqa", "pool": 7, "hyper_channels": 112, "target_widths": (224, 112, 56, 28, 14)}
"""HyperIQA's head, the default on Swin and ResNet; the other defaults are those of ``ours``, made for ``tiny4``."""
OUR_HEAD = {"pool": 7, "hyper_channels": 112, "target_widths": (224, 112, 56)}
"""Defaults of ``ours`` on Swin and ResNet."""
REDUCTIONS = {**dict.fromkeys(SWIN_BACKBONES, (512, 256)), **dict.fromkeys(RESNETS, (1024, 512))}
"""Channels between the fused map and the hyper-network: HyperIQA's on ResNet-50, half of them on Swin's fewer."""
RECIPE = {"learning_rate": 2e-5, "learning_rate_multipliers": {"head": 10.0}}
"""HyperIQA's: its hyper-network learns ten times as fast as the pretrained backbone."""

BackboneName = Annotated[str, registered(STAGED_BACKBONES), Field(json_schema_extra={"enum": list(STAGED_BACKBONES)})]
FusionMode = Annotated[str, registered(FUSIONS), Field(json_schema_extra={"enum": list(FUSIONS)})]
Width = Annotated[int, Field(ge=1, le=8192)]


class BackboneSection(Section):
    """The network whose four stages are fused."""

    name: BackboneName = Field(
        default=TINY_BACKBONE, description="tiny4: four small conv stages; swin_*, resnet*: torchvision's."
    )
    widths: tuple[Width, Width, Width, Width] = Field(
        default=(16, 32, 64, 96), description="Channels of the four stages of tiny4."
    )
    weights: str | None = Field(
        default=None,
        description="Swin, ResNet: name of torchvision's weights (IMAGENET1K_V1) or a file; null: random.",
    )

    @model_validator(mode="after")
    def _keys_fit_the_network(self) -> BackboneSection:
        if self.name == TINY_BACKBONE and self.weights is not None:
            raise ValueError(
                f"model.backbone.weights '{self.weights}' belong to swin_t, swin_s, swin_b and resnets, not to tiny4"
            )
        if self.name in REDUCTIONS and self.widths != type(self).model_fields["widths"].default:
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
    """The hyper-network and the per-image target network it writes; on Swin and ResNet by default HyperIQA's."""

    mode: Literal["ours", "hyperiqa"] = Field(
        default="ours",
        description="hyperiqa: content vector from local-distortion modules of every stage, the default on Swin and "
        "ResNet; ours: linear in the mean of the fused map, for tiny4.",
    )
    pool: int = Field(default=4, ge=1, le=32, description="Side of the grid all stages are pooled to; hyperiqa: 7.")
    reductions: tuple[Width, ...] = Field(
        default=(),
        max_length=4,
        description="Channels of 1x1 convolutions before the one to hyper_channels; hyperiqa: 512, 256 (ResNet 1024, "
        "512), three reductions in all.",
    )
    hyper_channels: int = Field(
        default=32, ge=1, le=2048, description="Channels the hyper-network reads; hyperiqa: 112."
    )
    target_widths: tuple[Width, ...] = Field(
        default=(32, 16, 8),
        min_length=1,
        max_length=8,
        description="Input and hidden widths of the target network; hyperiqa: 224, 112, 56, 28, 14.",
    )

    @model_validator(mode="after")
    def _weights_fill_the_grid(self) -> HeadSection:
        for before, after in zip(self.target_widths, self.target_widths[1:], strict=False):
            if before * after % self.pool**2:
                raise ValueError(
                    f"model.head.target_widths {before} x {after} weights do not fill model.head.pool {self.pool} x "
                    f"{self.pool} cells evenly: {before * after} is no multiple of {self.pool**2}"
                )
        if self.mode == "hyperiqa" and self.target_widths[0] <= CONTENT_OF_STAGES:
            raise ValueError(
                f"model.head.target_widths {self.target_widths[0]}: the content vector holds {CONTENT_OF_STAGES} "
                f"values of the first stages and needs some for the last (valid: above {CONTENT_OF_STAGES})"
            )
        return self


class HyperIqaSection(ModelSection):
    """HyperIQA on a multi-scale backbone: a hyper-network writes a small quality network for every image."""

    builds: ClassVar[str] = "routing.models.hyperiqa.model:HyperIqa"

    tasks: ClassVar[tuple[str, ...]] = ("quality",)
    after_training: ClassVar[tuple[str, ...]] = ("crops", "crop_places", "crop_seed")

    name: Literal["hyperiqa"] = "hyperiqa"
    crop_size: int | None = Field(
        default=None, ge=16, le=2048, description="Side of the crops the network sees; null: the image's height."
    )
    crops: int = Field(default=1, ge=1, le=25, description="Crops per image, averaged, outside training.")
    crop_places: Literal["grid", "random"] = Field(
        default="grid",
        description="Where they lie: the centre, the corners and the middles of the edges (9 at most), or at random "
        "places of every image (25 at most), the same ones in every evaluation.",
    )
    crop_seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of random places.")
    fewer_scales_weight: float = Field(
        default=0.1,
        ge=0,
        le=100,
        description="Weight of a loss on a random number of the first scales only, which the knob needs; 0: none.",
    )
    backbone: BackboneSection = BackboneSection()
    fusion: FusionSection = FusionSection()
    head: HeadSection = HeadSection()

    @model_validator(mode="after")
    def _the_grid_has_nine_places(self) -> HyperIqaSection:
        if self.crop_places == "grid" and self.crops > GRID_CROPS:
            raise ValueError(
                f"model.crops {self.crops}: the grid has {GRID_CROPS} places (valid: up to {GRID_CROPS}, or "
                "model.crop_places random)"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _head_as_large_as_its_backbone(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        backbone, head = values.get("backbone"), values.get("head", {})
        name = backbone.get("name") if isinstance(backbone, dict) else None
        if not isinstance(head, dict):
            return values
        mode = head.get("mode", "hyperiqa" if name in REDUCTIONS else "ours")
        if mode != "hyperiqa":
            return {**values, "head": {**(OUR_HEAD if name in REDUCTIONS else {}), **head}}
        return {**values, "head": {**PAPER_HEAD, "reductions": REDUCTIONS.get(str(name), (64, 48)), **head}}

    def recipe(self, task: str) -> dict[str, Any]:
        """HyperIQA's rates where its head is used."""
        return RECIPE if self.head.mode == "hyperiqa" else {}
