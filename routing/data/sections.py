"""Configuration of every data set, free of torch and scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from routing.config.section import DatasetSection, Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DigitsSection(DatasetSection):
    """Embedded default: scikit-learn's real 8x8 digits, enlarged, somewhere on a cluttered canvas."""

    reader: ClassVar[str] = "routing.data.digits"

    name: Literal["digits"] = "digits"
    input_size: int = Field(default=40, ge=16, le=256, description="Height and width of the canvas in pixels.")
    patch_grid_size: int = Field(default=5, ge=1, le=64, description="Patches per side; must divide input_size.")
    patch_margin: int = Field(default=4, ge=0, le=64, description="Context around each patch in pixels, every side.")
    digit_size: int = Field(default=14, ge=8, le=64, description="Height and width of the digit in pixels.")
    fragments: int = Field(default=6, ge=0, le=64, description="Fragments of other digits drawn as clutter.")
    num_train: int = Field(default=24_000, ge=1, le=1_000_000, description="Training images drawn.")
    num_val: int = Field(default=3_000, ge=1, le=1_000_000, description="Validation images drawn.")
    num_test: int = Field(default=3_000, ge=1, le=1_000_000, description="Test images drawn.")

    @model_validator(mode="after")
    def _digit_fits(self) -> DigitsSection:
        if self.digit_size > self.input_size:
            raise ValueError(
                f"dataset.digit_size {self.digit_size} is larger than dataset.input_size {self.input_size}"
            )
        return self


Share = Annotated[float, Field(ge=0, le=1)]
Channels = tuple[Share, Share, Share]
Positive = Annotated[float, Field(gt=0, le=10)]
Spread = tuple[Positive, Positive, Positive]


class FileImagesSection(Section):
    """How data sets of image files read them."""

    how: ClassVar[tuple[str, ...]] = ("storage", "workers", "on_device")

    storage: Literal["cache", "files"] = Field(
        default="cache",
        description="cache: decoded once, into memory-mapped files; files: decoded in every epoch, nothing is stored.",
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="Processes that decode; null: one per CPU, 8 at most for files; 0: none.",
    )
    on_device: bool | Literal["auto"] = Field(
        default="auto", description="Keep a split in the GPU's memory; auto: where it takes less than half of it."
    )
    on_damaged: Literal["error", "skip"] = Field(
        default="error", description="What a file that cannot be decoded does; skip leaves it out and lists it."
    )
    bit_depth: Literal["auto", 8, 10, 12, 14, 16] = Field(
        default="auto", description="Bits of grey values in wider files, one scale for all; auto: found from all files."
    )
    background: str = Field(
        default="white", description="Colour behind transparent pixels: a name, or '#rrggbb'.", max_length=40
    )

    @field_validator("background")
    @classmethod
    def _is_a_colour(cls, value: str) -> str:
        _rgb(value)
        return value

    @property
    def background_rgb(self) -> tuple[int, int, int]:
        """The colour behind transparent pixels."""
        return _rgb(self.background)


def _rgb(colour: str) -> tuple[int, int, int]:
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(colour)[:3]
    except ValueError:
        raise ValueError(f"dataset.background '{colour}' is no colour (valid: white, black, '#rrggbb', ...)") from None
    return red, green, blue


class FoundImagesSection(DatasetSection):
    """What data sets of images found on disk share: where they are, and how training images are split."""

    root: Path = Field(description="Folder that holds the data.")
    patch_margin: int = Field(default=4, ge=0, le=256, description="Context around each patch in pixels, every side.")
    val_fraction: float = Field(default=0.1, gt=0, lt=1, description="Cut from train by seed where no val is given.")
    num_train: int | None = Field(
        default=None, ge=1, description="Train on this many images only, drawn by seed; null: all."
    )


Interpolation = Literal["bilinear", "bicubic", "lanczos"]


class ImageFolderSection(FoundImagesSection, FileImagesSection):
    """Any folder of class folders: ``root/train/<class>/*``, ``val`` and ``test`` if given; or the classes alone."""

    reader: ClassVar[str] = "routing.data.image_folder"
    how: ClassVar[tuple[str, ...]] = FileImagesSection.how

    name: Literal["image_folder"] = "image_folder"
    root: Path = Field(description="Folder that holds train/<class>/ and, if given, val/ and test/; or the classes.")
    input_size: int = Field(default=32, ge=8, le=1024, description="Images are resized once to this size in pixels.")
    resize: Literal["auto", "stretch", "shortest", "longest_pad"] = Field(
        default="stretch",
        description="stretch: to a square; shortest: the shorter side fits, the centre is cut out; longest_pad: the "
        "longer side fits, the rest is filled with the mean. timm calls them squash, center, border. auto: this and "
        "all of input_size, crop_pct, interpolation, mean, std that are not given, as the model's weights were "
        "trained, or as its library says of its name; shortest where neither says it.",
    )
    crop_pct: float = Field(
        default=1.0, gt=0.1, le=1, description="Side of the centre that is cut out of the resized image, as a share."
    )
    interpolation: Interpolation = Field(default="bilinear", description="Filter of the resize; all are antialiased.")
    mean: Channels = Field(default=(0.485, 0.456, 0.406), description="Mean of pixels in [0, 1] that is subtracted.")
    std: Spread = Field(default=(0.229, 0.224, 0.225), description="Deviation that pixels are divided by.")
    test_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="Cut by seed where the root holds class folders only, without train/."
    )

    def check(self) -> None:
        """Read the images once, into the cache: a damaged one is known before any training."""
        self.load()

    def check_for_nodes(self) -> None:
        """Read the images once: the folder must be there, as the classes are read from it."""
        self.load()

    @model_validator(mode="after")
    def _something_is_left(self) -> ImageFolderSection:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"dataset.val_fraction {self.val_fraction:g} and dataset.test_fraction {self.test_fraction:g} leave "
                "nothing to train on"
            )
        return self


class BoxedImagesSection(FoundImagesSection, FileImagesSection):
    """Images with boxes around what they show: the class is the only kind in an image, the box is the oracle's."""

    reader: ClassVar[str] = "routing.data.boxed_images"

    name: Literal["boxed_images"] = "boxed_images"
    root: Path = Field(description="Folder that holds the list of boxes and the folder of images.")
    boxes: str = Field(
        default="boxes.csv",
        min_length=1,
        max_length=200,
        description="File below root: image, width, height, label, xmin, ymin, xmax, ymax.",
    )
    images: str = Field(default="images", max_length=200, description="Folder below root that holds the images.")
    input_size: int = Field(default=128, ge=8, le=1024, description="Images are resized once to this size in pixels.")
    patch_grid_size: int = Field(default=8, ge=1, le=256, description="Patches per side; must divide input_size.")
    resize: Literal["stretch", "longest_pad"] = Field(
        default="stretch",
        description="stretch: to a square; longest_pad: the longer side fits, the rest is filled with the mean. What "
        "cuts images would cut boxes.",
    )
    interpolation: Interpolation = Field(default="bilinear", description="Filter of the resize; all are antialiased.")
    test_fraction: float = Field(default=0.2, gt=0, lt=1, description="Cut by seed, class by class.")
    val_fraction: float = Field(default=0.2, gt=0, lt=1, description="Cut by seed, class by class.")

    def check(self) -> None:
        """Read the images once, into the cache: a damaged one is known before any training."""
        self.load()


class TorchvisionSection(FoundImagesSection):
    """What data sets through torchvision share."""

    root: Path = Field(description="Folder that holds the files of the data set, or will.")
    download: bool = Field(default=False, description="Download what is missing or damaged.")

    def check(self) -> None:
        """Read the files once, into the cache: ``info`` alone would not open them."""
        self.load()

    def fit_array(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Return pixels (C, H, W) as those of the data set are resized."""
        import torch

        from routing.data.torchvision_data import resize

        resized: NDArray[np.uint8] = resize(torch.from_numpy(pixels)[None], self.input_size)[0].numpy()
        return resized


class CifarSection(TorchvisionSection):
    """CIFAR-10 or CIFAR-100."""

    reader: ClassVar[str] = "routing.data.cifar"

    name: Literal["cifar10", "cifar100"] = Field(default="cifar10", description="Which of the two.")
    input_size: int = Field(default=32, ge=8, le=1024, description="Images are resized once to this size in pixels.")


class MnistSection(TorchvisionSection):
    """MNIST or Fashion-MNIST."""

    reader: ClassVar[str] = "routing.data.mnist"

    name: Literal["mnist", "fashion_mnist"] = Field(default="mnist", description="Which of the two.")
    input_size: int = Field(default=28, ge=8, le=1024, description="Images are resized once to this size in pixels.")
    patch_margin: int = Field(default=3, ge=0, le=256, description="Context around each patch in pixels, every side.")
