"""Embedded default data: where is the digit, and which one is it?

scikit-learn's 1,797 real 8x8 digits are split 60/20/20 **by source digit** before anything is drawn. Each image is one
digit, enlarged, at a random place of a canvas among fragments of other digits and noise. Fragments come from the same
split as the digit, so that no source digit is ever seen in two splits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from routing.data import SPLITS, DataInfo, ImageData
from routing.data.cache import Arrays, cached_data
from routing.data.progress import Progress
from routing.data.room import check_room
from routing.data.sections import DigitsSection

VERSION = 1  # raise when the drawing changes: cached arrays of an older version are then not used
SPLIT_SHARES = (0.6, 0.2, 0.2)
MEAN, STD = 0.10, 0.21  # of the default canvas, rounded
_BYTES_PER_PIXEL = 13  # of a canvas: three times float32 while it is rounded, and uint8
FRAGMENT_SIZES = (4, 8)  # pixels, upper end exclusive
NOISE_STD = 0.06  # of the pixel range


def info(section: DigitsSection) -> DataInfo:
    """Describe the data without drawing it."""
    return DataInfo(
        task="classification",
        channels=1,
        input_size=section.input_size,
        num_outputs=10,
        mean=(MEAN,),
        std=(STD,),
        class_names=tuple("0123456789"),
        patch_grid_size=section.patch_grid_size,
        patch_margin=section.patch_margin,
        facts=("box",),
    )


def load(section: DigitsSection) -> ImageData:
    """Return the drawn splits; ``extra["box"]`` is (N, 4): top, left, height, width of the digit in pixels."""
    drawing = section.model_dump(exclude={"name", "patch_grid_size", "patch_margin"})
    return cached_data(info(section), "digits", {"version": VERSION, **drawing}, lambda: _draw_all(section))


def source_split(seed: int) -> dict[str, NDArray[np.int64]]:
    """Return the source digits (indices into scikit-learn's 1,797) of every split; disjoint, together all."""
    from sklearn.datasets import load_digits

    order = np.random.default_rng([seed, 0]).permutation(len(load_digits().target))
    ends = np.cumsum(np.array(SPLIT_SHARES) * len(order)).round().astype(int)
    return dict(zip(SPLITS, np.split(order, ends[:-1]), strict=True))


def _draw_all(section: DigitsSection) -> Arrays:
    from sklearn.datasets import load_digits

    source = load_digits()
    pixels = (source.images * (255 / 16)).round().astype(np.uint8)
    sources = source_split(section.seed)
    counts = {"train": section.num_train, "val": section.num_val, "test": section.num_test}
    check_room(counts, _BYTES_PER_PIXEL * section.input_size**2)
    return {
        name: _draw(
            section,
            pixels[sources[name]],
            source.target[sources[name]],
            sources[name],
            counts[name],
            np.random.default_rng([section.seed, 1 + SPLITS.index(name)]),
        )
        for name in SPLITS
    }


def _draw(
    section: DigitsSection,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    sources: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.generic]]:
    """Draw ``count`` canvases from the source digits ``pixels`` (M, 8, 8); every source is used equally often."""
    size, digit = section.input_size, section.digit_size
    large = np.stack([np.asarray(Image.fromarray(p).resize((digit, digit), Image.Resampling.BILINEAR)) for p in pixels])
    chosen = np.concatenate([rng.permutation(len(pixels)) for _ in range(-(-count // len(pixels)))])[:count]
    canvases = np.zeros((count, size, size), np.float32)
    corners = rng.integers(0, size - digit + 1, (count, 2))
    progress = Progress("drawing", count)
    for canvas, index, (top, left) in zip(canvases, chosen, corners, strict=True):
        progress.add(1)
        for _ in range(section.fragments):
            _paste_fragment(canvas, large[rng.integers(len(large))], rng)
        canvas[top : top + digit, left : left + digit] = large[index]
    progress.close()
    for canvas in canvases:
        canvas += rng.normal(0, NOISE_STD * 255, canvas.shape)
    boxes = np.column_stack([corners, np.full((count, 2), digit)]).astype(np.int64)
    return {
        "images": canvases.clip(0, 255).round().astype(np.uint8)[:, None],
        "targets": labels[chosen].astype(np.int64),
        "box": boxes,
        "source": sources[chosen].astype(np.int64),
    }


def _paste_fragment(canvas: NDArray[np.float32], glyph: NDArray[np.uint8], rng: np.random.Generator) -> None:
    height, width = np.minimum(rng.integers(*FRAGMENT_SIZES, 2), len(glyph))
    top, left = rng.integers(0, len(glyph) - height + 1), rng.integers(0, len(glyph) - width + 1)
    y, x = rng.integers(0, len(canvas) - height + 1), rng.integers(0, len(canvas) - width + 1)
    place = canvas[y : y + height, x : x + width]
    np.maximum(place, glyph[top : top + height, left : left + width], out=place)
