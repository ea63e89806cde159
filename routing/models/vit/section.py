"""Configuration of vision transformers and of token pruning, free of torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from routing.config.preprocessing import Preprocessing
from routing.config.registry import SELECTIONS
from routing.config.section import ModelSection, Section, registered
from routing.errors import InputError
from routing.models.preprocessing import timm_preprocessing, torchvision_preprocessing, transformers_preprocessing
from routing.models.vit.schedule import Schedule

Count = Annotated[int, Field(ge=1, le=100_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Layer = Annotated[int, Field(ge=1, le=1000)]

TokenMethodName = Annotated[
    str, registered(SELECTIONS, "none"), Field(json_schema_extra={"enum": ["none", *SELECTIONS]})
]
TorchvisionName = Literal["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"]


def _schedule_text(value: Any) -> Any:
    """Return a schedule as text, which is a value like any other in tables, ledgers and knob values."""
    if value is None:
        return None
    try:
        return Schedule.of(value).text()
    except InputError as error:
        raise ValueError(str(error).removeprefix("pruning.schedule").lstrip(": ")) from None


ScheduleText = Annotated[
    str,
    BeforeValidator(_schedule_text),
    Field(json_schema_extra={"type": ["object", "integer", "string"], "examples": [{4: 0.7, 7: 0.7, 10: 0.7}, 8]}),
]


class PruningGridSection(Section):
    """Operating points: every combination of these values that leaves no more tokens than there are.

    A key left empty keeps the value beside the grid; with all of them empty a short default curve is evaluated.
    """

    k_anchors: tuple[Count, ...] = Field(default=(), description="Values of k_anchors to evaluate.")
    top_m: tuple[Count, ...] = Field(default=(), description="Values of top_m to evaluate.")
    alpha: tuple[Share, ...] = Field(default=(), description="Values of alpha to evaluate.")
    start_layer: tuple[Layer, ...] = Field(default=(), description="Values of start_layer to evaluate.")
    schedule: tuple[ScheduleText, ...] = Field(default=(), description="Schedules to evaluate.")
    keep_rate: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(),
        description="Keep rates to evaluate: of every block of the schedule; where it is a count per block, of all "
        "patches in the end; without a schedule, at start_layer.",
    )


class PruningSection(Section):
    """Token reduction of a trained transformer; without ``training.reduce_tokens`` it acts in evaluation only."""

    method: TokenMethodName = Field(
        default="none", description="How tokens are chosen; of ours, all but importance_diversity are controls."
    )
    k_anchors: int = Field(default=10, ge=1, le=100_000, description="Tokens with the highest CLS attention.")
    top_m: int = Field(default=50, ge=1, le=100_000, description="Further tokens, by score.")
    alpha: float = Field(default=0.5, ge=0, le=1, description="Weight of importance against diversity.")
    start_layer: int = Field(default=1, ge=1, le=1000, description="First block on fewer tokens; blocks count from 0.")
    schedule: ScheduleText | None = Field(
        default=None,
        description="In place of k_anchors + top_m at start_layer: {block: share or number of the patches present that "
        "stay}, or a count: this many fewer in every block.",
    )
    direction: Literal["anchor_to_token", "token_to_anchor"] = Field(
        default="anchor_to_token", description="Whose attention is importance; the second needs the full map."
    )
    normalize: Literal["minmax", "none"] = Field(
        default="minmax", description="Scale importance and diversity per image before they are added, or not."
    )
    grid: PruningGridSection = PruningGridSection()

    @model_validator(mode="after")
    def _a_schedule_says_where_and_how_many(self) -> PruningSection:
        ignored = [key for key in ("top_m", "start_layer") if getattr(self.grid, key)]
        if ignored and (self.schedule is not None or self.grid.schedule):
            raise ValueError(
                f"model.pruning.grid.{ignored[0]} has no effect on a schedule, which says where and how many (valid: "
                "grid.schedule, grid.keep_rate, or no schedule)"
            )
        return self


class TransformerSection(ModelSection):
    """Settings of every vision transformer."""

    after_training: ClassVar[tuple[str, ...]] = ("pruning",)
    has_stages: ClassVar[bool] = True

    weights: str | None = Field(default=None, description="Weights to start from.")
    pruning: PruningSection = PruningSection()


class VitShape(ModelSection):
    """Sizes of this project's vision transformer; the defaults are the reference setting for 28-pixel digits."""

    patch_size: int | None = Field(
        default=None, ge=1, le=1024, description="Pixels per side; default 7, else the largest divisor below it."
    )
    width: int = Field(default=128, ge=1, le=65536, description="Width of a token, D.")
    heads: int = Field(default=4, ge=1, le=1024, description="Attention heads; must divide the width.")
    depth: int = Field(default=6, ge=1, le=1000, description="Blocks.")
    mlp: int = Field(default=256, ge=1, le=262144, description="Hidden width of a block's MLP.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout in training.")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> VitShape:
        if self.width % self.heads:
            valid = [count for count in range(1, self.width + 1) if self.width % count == 0]
            raise ValueError(
                f"model.heads {self.heads} does not divide model.width {self.width} "
                f"(valid: {', '.join(map(str, valid))})"
            )
        return self


class VitSection(VitShape, TransformerSection):
    """This project's vision transformer, with token pruning."""

    builds: ClassVar[str] = "routing.models.vit.model:Vit"

    name: Literal["vit"] = "vit"
    weights: str | None = Field(
        default=None, description="Folder of a trained run, or its model.safetensors, to start from."
    )


class RoutedVitSection(VitShape):
    """Mixture-of-Depths: in some blocks a share of the tokens passes attention and MLP, the rest skips the block."""

    builds: ClassVar[str] = "routing.models.vit.routed:RoutedVit"

    name: Literal["routed_vit"] = "routed_vit"
    capacity: float = Field(default=0.5, gt=0, le=1, description="Share of the patches that pass a routed block.")
    every: int = Field(
        default=2, ge=2, le=1000, description="2: every second block is routed, 3: every third; others take all tokens."
    )
    scores: Literal["attention", "learned", "random", "permuted"] = Field(
        default="attention",
        description="What chooses tokens. attention: what they receive in the block before, no parameters; learned: a "
        "linear score per routed block; random, permuted (scores of another image): controls.",
    )

    @model_validator(mode="after")
    def _some_block_is_routed(self) -> RoutedVitSection:
        if self.every > self.depth:
            raise ValueError(
                f"model.every {self.every}: with model.depth {self.depth} no block is routed (valid: 2 to {self.depth})"
            )
        return self


class TimmVitSection(TransformerSection):
    """A plain vision transformer of timm, by name."""

    builds: ClassVar[str] = "routing.models.vit.model:TimmVit"

    name: Literal["timm_vit"] = "timm_vit"
    architecture: str = Field(
        default="vit_tiny_patch16_224",
        description="timm's name; it may end in a tag, which selects the DEFAULT weights.",
    )
    weights: str | None = Field(
        default=None,
        description="DEFAULT: timm's pretrained weights, downloaded once; or a file (.safetensors, .pth, .bin, ...).",
    )

    def preprocessing(self) -> Preprocessing:
        """timm's of the architecture."""
        return timm_preprocessing(self.architecture)


class TransformersVitSection(TransformerSection):
    """An image classifier of Hugging Face's transformers on a plain vision transformer: ViT, DINOv2 or CLIP."""

    builds: ClassVar[str] = "routing.models.vit.transformers_model:TransformersVit"

    name: Literal["transformers_vit"] = "transformers_vit"
    architecture: str = Field(
        default="google/vit-base-patch16-224",
        description="Folder with config.json, or name on the Hugging Face Hub, of a ViT, DINOv2 or CLIP vision model.",
    )
    weights: str | None = Field(
        default=None,
        description="DEFAULT: those of the architecture; another folder like it; a run; or a file (.safetensors, ...).",
    )

    _config: dict[str, Any] | None = PrivateAttr(default=None)

    @property
    def config(self) -> dict[str, Any] | None:
        """What a run kept of config.json; None: it is read."""
        return self._config

    def with_library_config(self, config: dict[str, Any]) -> TransformersVitSection:
        """To be built from this, and not from files of the architecture."""
        found = self.model_copy()
        found._config = config
        return found

    def preprocessing(self) -> Preprocessing | None:
        """That of preprocessor_config.json beside the weights, else of the architecture."""
        return transformers_preprocessing(self.architecture, self.weights)


class TorchvisionVitSection(TransformerSection):
    """A vision transformer of torchvision, by name."""

    builds: ClassVar[str] = "routing.models.vit.model:TorchvisionVit"

    name: Literal["torchvision_vit"] = "torchvision_vit"
    architecture: TorchvisionName = Field(default="vit_b_16", description="torchvision's name.")
    weights: str | None = Field(
        default=None,
        description="torchvision's name of pretrained weights (IMAGENET1K_V1, DEFAULT: downloaded once), or a file.",
    )

    def preprocessing(self) -> Preprocessing | None:
        """torchvision's of the weights."""
        return torchvision_preprocessing(self.architecture, self.weights)
