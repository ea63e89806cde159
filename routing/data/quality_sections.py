"""Configuration of the image-quality data sets, free of torch and scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from routing.config.section import DatasetSection, Section
from routing.data.sections import FileImagesSection, Interpolation


class QualityDatasetSection(DatasetSection):
    """What every data set of the task ``quality`` shares: targets in [0, 1], 1 is best."""

    task: ClassVar[str] = "quality"


class QualitySection(QualityDatasetSection):
    """Embedded default of the task: crops of scikit-learn's two photographs, distorted at five severities."""

    reader: ClassVar[str] = "routing.data.quality"

    name: Literal["quality"] = "quality"
    input_size: int = Field(default=48, ge=16, le=64, description="Height and width of a crop in pixels.")
    num_train: int = Field(default=16_000, ge=20, le=1_000_000, description="Training images drawn.")
    num_val: int = Field(default=2_000, ge=20, le=1_000_000, description="Validation images drawn.")
    num_test: int = Field(default=2_000, ge=20, le=1_000_000, description="Test images drawn.")


class ScoreColumns(Section):
    """Names of the CSV's columns."""

    image: str = Field(default="image_name", min_length=1, description="Name of the image inside the folder.")
    score: str = Field(default="MOS", min_length=1, description="Its mean opinion score; higher is better.")
    set: str = Field(
        default="set", min_length=1, description="training, validation or test; a CSV without it is cut by seed."
    )


class ScoreSplit(Section):
    """How images are cut into training, validation and test where the CSV does not say so; by dataset.seed."""

    val_fraction: float = Field(default=0.2, gt=0, lt=1, description="Share of the images, or groups, to validate on.")
    test_fraction: float = Field(default=0.0, ge=0, lt=1, description="Share to test on; 0: there is no test split.")
    group: str | None = Field(
        default=None,
        min_length=1,
        description="Column whose equal values stay in one split: the reference image of synthetic distortions, say.",
    )

    @model_validator(mode="after")
    def _some_are_left(self) -> ScoreSplit:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"dataset.split: val_fraction {self.val_fraction:g} and test_fraction {self.test_fraction:g} leave "
                "nothing to train on (valid: below 1 together)"
            )
        return self


class ScoredFolder(Section):
    """A folder of images and a CSV of mean opinion scores (MOS), one row per image."""

    root: Path = Field(description="Folder that holds the CSV and the images.")
    csv: Path = Field(
        default=Path("koniq10k_distributions_sets.csv"), description="CSV of scores, relative to the root."
    )
    images: Path = Field(default=Path("1024x768"), description="Folder of the images, relative to the root.")
    mos_min: float = Field(default=0.0, description="MOS that becomes target 0.")
    mos_max: float = Field(default=100.0, description="MOS that becomes target 1.")
    columns: ScoreColumns = ScoreColumns()

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> ScoredFolder:
        if self.mos_min >= self.mos_max:
            raise ValueError(f"mos_min {self.mos_min:g} must be below mos_max {self.mos_max:g}")
        return self


class Koniq10kSection(QualityDatasetSection, ScoredFolder, FileImagesSection):
    """KonIQ-10k with its official split (arXiv:1910.06180), or any data in the same CSV form."""

    reader: ClassVar[str] = "routing.data.koniq"
    how: ClassVar[tuple[str, ...]] = FileImagesSection.how

    name: Literal["koniq10k"] = "koniq10k"
    input_size: int = Field(default=384, ge=32, le=1024, description="Images are resized once to this height.")
    input_width: int = Field(default=512, ge=32, le=2048, description="And to this width, in pixels.")
    resize: Literal["stretch", "shortest", "longest_pad"] = Field(
        default="stretch",
        description="stretch: to this shape; shortest: the image fits around it, the centre is cut out; longest_pad: "
        "the image fits inside, the rest is filled with the mean.",
    )
    interpolation: Interpolation = Field(default="bilinear", description="Filter of the resize; all are antialiased.")
    split: ScoreSplit | None = Field(
        default=None, description="Cut by dataset.seed instead of the CSV's column; null: only where it has none."
    )
    cross_test: ScoredFolder | None = Field(
        default=None, description="Second data set in the same form, tested after training (cross_* metrics)."
    )

    def check(self) -> None:
        """Read the images once, into the cache: ``info`` alone would not open them."""
        self.load()
