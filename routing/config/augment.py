"""Configuration of augmentation, free of torch."""

from __future__ import annotations

from pydantic import Field

from routing.config.section import Section


class ColorJitterSection(Section):
    """How far the colours of each image may change; 0 is off."""

    brightness: float = Field(default=0.0, ge=0, le=10, description="Factor of 1 - x to 1 + x.")
    contrast: float = Field(default=0.0, ge=0, le=10, description="Factor of 1 - x to 1 + x.")
    saturation: float = Field(default=0.0, ge=0, le=10, description="Factor of 1 - x to 1 + x.")
    hue: float = Field(default=0.0, ge=0, le=0.5, description="Turn of the hue by up to x of the circle; slow.")

    @property
    def is_on(self) -> bool:
        """Whether anything changes."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))


class AugmentSection(Section):
    """How training images are varied, each in its own way; mixup and cutmix once per batch."""

    resized_crop: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Cut out this share of the area at least, at an aspect of 3/4 to 4/3, and scale it to the image's "
        "size (RandomResizedCrop); 0 is off.",
    )
    crop: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Shift by up to this many pixels, the edge reflected (RandomCrop); 0 is off.",
    )
    flip: bool = Field(default=False, description="Mirror images left to right, each with probability one half.")
    rand_augment: int = Field(
        default=0, ge=0, le=10, description="RandAugment (arXiv 1909.13719): operations per image; 0 is off."
    )
    rand_augment_magnitude: int = Field(default=9, ge=0, le=30, description="RandAugment: strength, of 0 to 30.")
    trivial_augment: bool = Field(
        default=False, description="TrivialAugment (arXiv 2103.10158): one operation per image at a random strength."
    )
    color_jitter: ColorJitterSection = ColorJitterSection()
    random_erasing: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability of a rectangle in the mean colour, 2 to 33 % of the area (arXiv 1708.04896).",
    )
    mixup: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Mix each image and target with another's: the share is drawn from Beta(x, x) once per batch "
        "(arXiv 1710.09412); 0 is off.",
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Paste a rectangle of another image, targets by area: Beta(x, x) (arXiv 1905.04899); 0 is off. "
        "With mixup too, each batch takes one of the two at random.",
    )

    def moving(self) -> list[str]:
        """Return the keys that are on and move what is in the image, or put another image there."""
        keys = ("resized_crop", "crop", "flip", "rand_augment", "trivial_augment", "mixup", "cutmix")
        return [key for key in keys if getattr(self, key)]
