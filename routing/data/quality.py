"""Embedded image-quality data: how badly is this photograph distorted?

scikit-learn's two photographs are cut into tiles, and every tile belongs to one split **before** anything is drawn:
no pixel is ever seen in two splits. Each image is a textured crop of a tile under one of four distortions at one of
five severities, 0.2 to 1; its quality, the target, is 1 - severity.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from routing.data import SPLITS, DataInfo, ImageData
from routing.data.cache import Arrays, cached_data
from routing.data.progress import Progress
from routing.data.quality_sections import QualitySection
from routing.data.room import check_room

VERSION = 1  # raise when the drawing changes: cached arrays of an older version are then not used
DISTORTIONS = ("blur", "jpeg", "colour", "noise")
LEVELS = 5
MEAN, STD = (0.53, 0.45, 0.34), (0.31, 0.23, 0.24)  # of the default training crops, rounded
TILE_ROWS, TILE_COLUMNS = 3, 5  # of each photograph
MIN_GRADIENT = 4.0  # grey levels between neighbouring pixels, mean of a crop: a blurred blank sky is a blank sky
MIN_CORNERS = 100  # places for a crop; a tile with fewer is left out

BLUR_SIGMA = (0.5, 1.0, 2.0, 4.0, 8.0)  # pixels
JPEG_QUALITY = (50, 25, 12, 6, 2)
COLOUR_SHIFT = (5.0, 15.0, 30.0, 50.0, 80.0)  # of the chroma plane (Cb, Cr), in a random direction
NOISE_STD = (4.0, 10.0, 22.0, 45.0, 90.0)  # of 255

Picture = NDArray[np.uint8]  # (H, W, 3)
Corners = NDArray[np.int64]  # (K, 2): top, left


def info(section: QualitySection) -> DataInfo:
    """Describe the data without drawing it."""
    return DataInfo(
        task="quality",
        channels=3,
        input_size=section.input_size,
        num_outputs=1,
        mean=MEAN,
        std=STD,
        patch_grid_size=section.patch_grid_size,
        patch_margin=section.patch_margin,
        groups=DISTORTIONS,
    )


def load(section: QualitySection) -> ImageData:
    """Return the drawn splits; ``extra``: ``group`` (N,) of ``DISTORTIONS``, ``place`` (N, 3) photograph, top, left."""
    drawing = section.model_dump(exclude={"name", "patch_grid_size", "patch_margin"})
    return cached_data(info(section), "quality", {"version": VERSION, **drawing}, lambda: _draw_all(section))


def blur(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Gaussian blur."""
    from scipy.ndimage import gaussian_filter

    sigma = BLUR_SIGMA[level - 1]
    return _to_uint8(gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0), mode="reflect"))


def jpeg(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """JPEG compression and back."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY[level - 1])
    return np.asarray(Image.open(buffer))


def colour(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """A shift of the chroma plane in a random direction: a colour cast."""
    angle = rng.uniform(0, 2 * np.pi)
    planes = np.array(Image.fromarray(picture).convert("YCbCr"), np.float32)
    planes[..., 1:] += COLOUR_SHIFT[level - 1] * np.array([np.cos(angle), np.sin(angle)], np.float32)
    return np.asarray(Image.fromarray(_to_uint8(planes), "YCbCr").convert("RGB"))


def noise(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Independent Gaussian noise."""
    return _to_uint8(picture + rng.normal(0, NOISE_STD[level - 1], picture.shape))


DISTORT: dict[str, Callable[[Picture, int, np.random.Generator], Picture]] = {
    "blur": blur,
    "jpeg": jpeg,
    "colour": colour,
    "noise": noise,
}


def _to_uint8(values: NDArray[np.floating]) -> Picture:
    return values.round().clip(0, 255).astype(np.uint8)


def tiles_of_split(photograph: Picture, size: int, rng: np.random.Generator) -> dict[str, list[Corners]]:
    """Deal the tiles of a photograph out to the splits: 60, 20 and 20 % of those that show something.

    Returns:
        For every split, the possible corners (K, 2) (top, left) of crops inside each of its tiles.
    """
    height, width = photograph.shape[0] // TILE_ROWS, photograph.shape[1] // TILE_COLUMNS
    textured = _mean_gradient(photograph, size) >= MIN_GRADIENT
    tiles = []
    for row, column in np.ndindex(TILE_ROWS, TILE_COLUMNS):
        top, left = row * height, column * width
        corners = np.argwhere(textured[top : top + height - size + 1, left : left + width - size + 1])
        if len(corners) >= MIN_CORNERS:
            tiles.append(corners + np.array([top, left]))
    held_out = max(1, round(len(tiles) / 5))
    order = rng.permutation(len(tiles))
    parts = {"val": order[:held_out], "test": order[held_out : 2 * held_out], "train": order[2 * held_out :]}
    return {name: [tiles[index] for index in parts[name]] for name in SPLITS}


def _mean_gradient(photograph: Picture, size: int) -> NDArray[np.float64]:
    """Return the mean grey-level step between neighbours in every crop of ``size``, by its top left corner."""
    grey = photograph.astype(np.float64).mean(axis=2)
    steps = np.zeros_like(grey)
    steps[:-1, :-1] = (np.abs(np.diff(grey, axis=1))[:-1] + np.abs(np.diff(grey, axis=0))[:, :-1]) / 2
    summed = np.pad(steps.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    total = summed[size:, size:] - summed[:-size, size:] - summed[size:, :-size] + summed[:-size, :-size]
    return np.asarray(total / size**2)


def _draw_all(section: QualitySection) -> Arrays:
    from sklearn.datasets import load_sample_images

    photographs = [np.asarray(image) for image in load_sample_images().images]
    tiles = [
        tiles_of_split(photograph, section.input_size, np.random.default_rng([section.seed, 0, index]))
        for index, photograph in enumerate(photographs)
    ]
    counts = {"train": section.num_train, "val": section.num_val, "test": section.num_test}
    check_room(counts, 3 * section.input_size**2)
    return {
        name: _draw(
            photographs,
            [np.concatenate(of_photograph[name]) for of_photograph in tiles],
            counts[name],
            section.input_size,
            np.random.default_rng([section.seed, 1 + SPLITS.index(name)]),
        )
        for name in SPLITS
    }


def _draw(
    photographs: Sequence[Picture], corners: Sequence[Corners], count: int, size: int, rng: np.random.Generator
) -> dict[str, NDArray[np.generic]]:
    """Draw ``count`` distorted crops at ``corners`` of each photograph; distortions and levels come equally often."""
    images = np.empty((count, 3, size, size), np.uint8)
    places = np.empty((count, 3), np.int64)
    kinds = np.arange(count) % len(DISTORTIONS)
    levels = np.arange(count) // len(DISTORTIONS) % LEVELS + 1
    progress = Progress("drawing", count)
    for index in range(count):
        progress.add(1)
        photograph = int(rng.integers(len(photographs)))
        top, left = corners[photograph][rng.integers(len(corners[photograph]))]
        crop = photographs[photograph][top : top + size, left : left + size]
        images[index] = DISTORT[DISTORTIONS[kinds[index]]](crop, int(levels[index]), rng).transpose(2, 0, 1)
        places[index] = photograph, top, left
    progress.close()
    return {
        "images": images,
        "targets": (1 - levels / LEVELS).astype(np.float32),
        "group": kinds.astype(np.int64),
        "place": places,
    }
