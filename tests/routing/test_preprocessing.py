"""How an image file becomes the pixels that a pretrained model was trained on: equal to timm's own transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from routing.config.run import RunConfig
from routing.data.view import View

TIMMS = {"stretch": "squash", "shortest": "center", "longest_pad": "border"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """50 images of odd shapes, smooth at the scale of photographs."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    paths = []
    for index in range(50):
        width, height = (int(side) for side in rng.integers(17, 260, size=2))
        coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        paths.append(folder / f"{index}.{'png' if index % 2 else 'jpg'}")
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


@pytest.mark.parametrize("crop_pct", [1.0, 0.9])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", TIMMS)
def test_pixels_are_those_of_timm(resize: str, interpolation: str, crop_pct: float, photographs: list[Path]) -> None:
    timm_data = pytest.importorskip("timm.data.transforms_factory")
    mean = (0.5, 0.4, 0.3)
    theirs = timm_data.transforms_imagenet_eval(
        64, crop_pct=crop_pct, crop_mode=TIMMS[resize], interpolation=interpolation, mean=mean, normalize=False
    )
    red, green, blue = (round(255 * value) for value in mean)
    view = View(64, 64, bit_depth=8, resize=resize, crop_pct=crop_pct, interpolation=interpolation,  # type: ignore[arg-type]
                fill=(red, green, blue))  # fmt: skip
    worst = 0
    for path in photographs:
        with Image.open(path) as image:
            expected = np.asarray(theirs(image.convert("RGB")))
            given = expected if expected.dtype == np.uint8 else np.round(255 * expected)
        given = given if given.shape[0] == 3 else given.transpose(2, 0, 1)
        worst = max(worst, int(np.abs(view.read(str(path)).astype(int) - given.astype(int)).max()))
    assert worst <= 1


@pytest.mark.parametrize("workers", [0, 1])
def test_keys_of_a_folder_reach_its_pixels(workers: int, photographs: list[Path], tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(2):
                Image.open(photographs[index]).convert("RGB").save(tmp_path / split / name / f"{index}.png")
    keys = {"dataset.name": "image_folder", "dataset.root": str(tmp_path), "dataset.input_size": 64}
    ours = {"dataset.resize": "longest_pad", "dataset.crop_pct": 1.0, "dataset.interpolation": "bicubic",
            "dataset.mean": [0.5, 0.5, 0.5], "dataset.std": [0.5, 0.5, 0.5], "dataset.workers": workers}  # fmt: skip
    section = RunConfig.from_dict({**keys, **ours}).dataset
    assert section.info().mean == section.info().std == (0.5, 0.5, 0.5)
    data = section.load()
    view = View(64, 64, bit_depth=8, resize="longest_pad", interpolation="bicubic", fill=(128, 128, 128))
    expected = view.read(str(tmp_path / "train" / "a" / "0.png"))
    assert any(np.array_equal(expected, image) for image in data["train"].images[:].numpy())


def test_a_default_view_keeps_the_key_of_its_cache() -> None:
    assert View(8, 8).key().keys() == {"version", "height", "width", "background", "bit_depth"}
    assert View(8, 8, resize="shortest").key()["resize"] == "shortest"
