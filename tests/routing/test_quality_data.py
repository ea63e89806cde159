"""The embedded image-quality data: nothing leaks, every distortion grows with its severity, the same every time."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from routing.data import SPLITS, ImageData
from routing.data.quality import DISTORT, DISTORTIONS, LEVELS, Picture, _mean_gradient, tiles_of_split
from routing.data.quality_sections import QualitySection

SMALL = QualitySection(num_train=400, num_val=200, num_test=200)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return SMALL.load()


@pytest.fixture(scope="module")
def photographs() -> list[Picture]:
    from sklearn.datasets import load_sample_images

    return [np.asarray(image) for image in load_sample_images().images]


def test_shapes_and_targets(data: ImageData) -> None:
    for name, count in (("train", 400), ("val", 200), ("test", 200)):
        split = data[name]
        assert split.images.shape == (count, 3, 48, 48)
        values, counts = np.unique(split.targets.numpy(), return_counts=True)
        np.testing.assert_allclose(values, [0.0, 0.2, 0.4, 0.6, 0.8], atol=1e-6)
        assert set(counts) == {count // LEVELS}
        assert np.bincount(split.extra["group"].numpy()).tolist() == [count // 4] * 4
    assert data.info.groups == DISTORTIONS
    assert data.info.task == "quality"


def test_no_pixel_is_in_two_splits(data: ImageData, photographs: list[Picture]) -> None:
    seen = {}
    for name in SPLITS:
        seen[name] = [np.zeros(photograph.shape[:2], bool) for photograph in photographs]
        for photograph, top, left in data[name].extra["place"].tolist():
            seen[name][photograph][top : top + 48, left : left + 48] = True
    for first, second in combinations(SPLITS, 2):
        for photograph in range(2):
            assert seen[first][photograph].any()
            assert not (seen[first][photograph] & seen[second][photograph]).any()


def test_crops_are_textured(data: ImageData, photographs: list[Picture]) -> None:
    gradients = [_mean_gradient(photograph, 48) for photograph in photographs]
    places = data["val"].extra["place"].tolist()
    assert min(gradients[photograph][top, left] for photograph, top, left in places) >= 4


def test_mean_gradient_by_hand() -> None:
    picture = np.repeat((np.arange(8, dtype=np.uint8) * 10)[None, :, None], 8, 0).repeat(3, 2)
    # 10 from column to column, 0 from row to row
    assert _mean_gradient(picture, 4)[1, 1] == pytest.approx(5.0)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_severity_grows(kind: str, photographs: list[Picture]) -> None:
    crop = photographs[0][300:348, 200:248]
    distances = []
    for level in range(1, LEVELS + 1):
        found = [DISTORT[kind](crop, level, np.random.default_rng(seed)) for seed in range(8)]
        assert all(picture.shape == crop.shape and picture.dtype == np.uint8 for picture in found)
        distances.append(np.mean([np.abs(picture.astype(float) - crop).mean() for picture in found]))
    assert distances == sorted(distances)
    assert distances[-1] > 2 * distances[0]


def test_same_seed_same_images_other_seed_other_tiles(data: ImageData, photographs: list[Picture]) -> None:
    from routing.data.quality import _draw_all

    again = _draw_all(SMALL)
    assert np.array_equal(again["val"]["images"], data["val"].images.numpy())
    tiles = [tiles_of_split(photographs[0], 48, np.random.default_rng(seed))["test"] for seed in range(5)]
    assert len({tuple(corners[0][0]) for corners in tiles}) > 1


def test_shares_of_tiles(photographs: list[Picture]) -> None:
    for photograph in photographs:
        tiles = tiles_of_split(photograph, 48, np.random.default_rng(0))
        counts = {name: len(tiles[name]) for name in SPLITS}
        assert counts["val"] == counts["test"] >= 1
        assert counts["train"] >= 2 * counts["val"]
