"""Configuration of dense convolutional classifiers, free of torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from routing.config.preprocessing import Preprocessing
from routing.config.registry import TORCHVISION_BACKBONES
from routing.config.section import ModelSection, Section
from routing.errors import choices, nearest
from routing.models.aacn.section import Channels
from routing.models.preprocessing import timm_preprocessing, torchvision_preprocessing


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError(f"model.kernel {kernel}: a stage keeps its size, which takes an odd kernel (valid: 1, 3, 5)")
    return kernel


def _known_net(name: str) -> str:
    if name not in TORCHVISION_BACKBONES:
        some = choices(["resnet18", "resnet50", "mobilenet_v3_small", "efficientnet_b0", "..."])
        raise ValueError(
            f"model.architecture: torchvision has no convolutional classifier '{name}'"
            f"{nearest(name, TORCHVISION_BACKBONES)} (valid: {some})"
        )
    return name


Kernel = Annotated[int, Field(ge=1, le=15), AfterValidator(_odd)]
Sides = Annotated[tuple[Annotated[int, Field(ge=4, le=4096)], ...], Field(max_length=8)]
Fraction = Annotated[float, Field(gt=0, le=1)]
NetName = Annotated[str, AfterValidator(_known_net), Field(json_schema_extra={"enum": list(TORCHVISION_BACKBONES)})]


CONV_RECIPE: dict[str, Any] = {
    "batch_size": 256,
    "optimizer": "sgd",
    "learning_rate": 0.15,
    "weight_decay": 1e-3,
    "lr_schedule": "linear",
    "warmup_fraction": 0.2,
    "grad_clip": 0.0,
    "label_smoothing": 0.1,
    "augment.crop": 2,
    "augment.flip": True,
}
"""How small conv nets with batch norm are trained on photographs in a few epochs."""


class ClassifierSection(ModelSection):
    """Settings of every dense convolutional classifier."""

    has_stages: ClassVar[bool] = True
    is_baseline: ClassVar[bool] = True

    resolutions: Sides = Field(
        default=(),
        description="Sides in pixels to which images are resized, one operating point each: a step of training takes "
        "the largest, the smallest and one between at random. Empty: images as they are, no knob.",
    )


class StemSection(Section):
    """The first convolution, without padding."""

    channels: int = Field(default=24, ge=1, le=4096, description="Channels.")
    kernel: int = Field(default=2, ge=1, le=32, description="Side of the kernel in pixels.")
    stride: int = Field(default=1, ge=1, le=32, description="Stride in pixels; 2 or more for large images.")


class ConvNetSection(ClassifierSection):
    """A plain conv net for photographs: stem, stages that halve the image, global pooling, a linear head."""

    builds: ClassVar[str] = "routing.models.conv.model:ConvNet"

    name: Literal["conv_net"] = "conv_net"
    stem: StemSection = StemSection()
    widths: Channels = Field(default=(24, 48, 96), description="Channels of every stage; each halves the image.")
    width_multiplier: float = Field(default=1.0, gt=0, le=16, description="Factor on all channels, stem included.")
    depth: int = Field(default=2, ge=1, le=16, description="Convolutions per stage; the first is followed by pooling.")
    kernel: Kernel = Field(default=3, description="Side of every kernel after the stem; odd.")
    skip_connections: bool = Field(
        default=False, description="Add the input of every convolution that keeps its shape to its output."
    )
    pool: Literal["max", "mean"] = Field(default="max", description="Global pooling before the head.")
    width_fractions: Annotated[tuple[Fraction, ...], Field(max_length=8)] = Field(
        default=(),
        description="Slimmable: one training serves these fractions of all channels, one operating point each, by the "
        "sandwich rule (arXiv 1903.05134). Empty: full width only, no knob.",
    )

    def recipe(self, task: str) -> dict[str, Any]:
        """Short trainings of small conv nets on photographs."""
        return dict(CONV_RECIPE) if task == "classification" else {}

    @model_validator(mode="after")
    def _one_knob(self) -> ConvNetSection:
        if self.width_fractions and self.resolutions:
            raise ValueError(
                "model.width_fractions and model.resolutions: a model has one knob; leave one of them empty"
            )
        if self.width_fractions and max(self.width_fractions) != 1:
            raise ValueError(
                f"model.width_fractions {list(self.width_fractions)}: the full width is missing (valid: 1 among them)"
            )
        return self


class TorchvisionNetSection(ClassifierSection):
    """A convolutional classifier of torchvision, by name."""

    builds: ClassVar[str] = "routing.models.conv.named:TorchvisionNet"

    name: Literal["torchvision_net"] = "torchvision_net"
    architecture: NetName = Field(default="resnet18", description="torchvision's name.")
    weights: str | None = Field(
        default=None,
        description="torchvision's name of pretrained weights (DEFAULT: downloaded once), a run, or a file.",
    )

    def preprocessing(self) -> Preprocessing | None:
        """torchvision's of the weights."""
        return torchvision_preprocessing(self.architecture, self.weights)


class TimmNetSection(ClassifierSection):
    """A classifier of timm, by name: convolutional or not."""

    builds: ClassVar[str] = "routing.models.conv.named:TimmNet"

    name: Literal["timm_net"] = "timm_net"
    architecture: str = Field(
        default="resnet10t", description="timm's name; it may end in a tag, which selects the DEFAULT weights."
    )
    weights: str | None = Field(
        default=None,
        description="DEFAULT: timm's pretrained weights, downloaded once; a run; or a file (.safetensors, .pth, ...).",
    )

    def preprocessing(self) -> Preprocessing:
        """timm's of the architecture."""
        return timm_preprocessing(self.architecture)
