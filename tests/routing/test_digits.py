"""The embedded data set: disjoint sources, repeatable drawing, boxes that hold the digit, patches that tile."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from routing.config.run import RunConfig
from routing.data import ImageData
from routing.data.cache import Arrays, cached_splits
from routing.data.digits import source_split
from routing.data.room import check_room
from routing.errors import InputError, RoutingError
from routing.models.grid import PatchGrid

SMALL = {"num_train": 60, "num_val": 40, "num_test": 20}


def load(**keys: Any) -> ImageData:
    values = {f"dataset.{key}": value for key, value in {**SMALL, **keys}.items()}
    return RunConfig.from_dict(values).dataset.load()


def test_no_source_digit_is_in_two_splits() -> None:
    sources = source_split(0)
    together = np.concatenate(list(sources.values()))
    assert sorted(together) == list(range(1797))
    assert [len(sources[name]) for name in ("train", "val", "test")] == [1078, 360, 359]
    data = load()
    for name, split in data.splits.items():
        assert set(split.extra["source"].tolist()) <= set(sources[name].tolist())


def test_drawing_repeats_and_depends_on_its_own_seed() -> None:
    first, second, other = load(), load(), load(seed=1)
    assert torch.equal(first["val"].images, second["val"].images)
    assert not torch.equal(first["val"].images, other["val"].images)
    assert first["train"].images.shape == (60, 1, 40, 40)
    assert first["train"].images.dtype == torch.uint8


def test_the_box_holds_the_digit() -> None:
    data = load(fragments=0)
    for image, box in zip(data["train"].images, data["train"].extra["box"].tolist(), strict=True):
        top, left, height, width = box
        inside = torch.zeros(40, 40, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        pixels = image[0].float()
        assert pixels[inside].mean() > 5 * pixels[~inside].mean()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"digit_size": 60}, r"dataset\.digit_size 60 is larger than dataset\.input_size 40"),
        ({"patch_grid_size": 7}, r"patch_grid_size 7 does not divide dataset\.input_size 40 \(valid: 1, 2, 4, 5, 8"),
        ({"digit_size": 4}, r"digit_size: must be greater than or equal to 8, not 4"),
    ],
)
def test_settings_that_cannot_be(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(**keys)


class TestPatchGrid:
    def test_patches_without_margin_tile_the_image(self) -> None:
        images = torch.arange(2 * 6 * 6, dtype=torch.float32).view(2, 1, 6, 6)
        patches = PatchGrid(6, 3, 0).all(images).view(2, 9, 2, 2)
        assert patches[0, 0].tolist() == [[0, 1], [6, 7]]
        assert patches[0, 5].tolist() == [[16, 17], [22, 23]]  # row 1, column 2
        assert patches.sum() == images.sum()

    def test_a_margin_looks_at_the_neighbours_and_black_outside(self) -> None:
        images = torch.ones(1, 1, 6, 6)
        patches = PatchGrid(6, 3, 1).all(images).view(9, 4, 4)
        assert patches[4].sum() == 16  # the cell in the middle sees only image
        assert patches[0].sum() == 9  # the corner sees seven pixels outside

    def test_cropping_some_is_the_same_as_cropping_all(self) -> None:
        grid, images = PatchGrid(12, 4, 2), torch.randn(3, 2, 12, 12)
        rows = torch.tensor([0, 5, 17, 47, 5])
        assert torch.equal(grid.crop(grid.view(images), rows), grid.all(images)[rows])

    def test_boxes_are_shared_out_completely(self) -> None:
        grid = PatchGrid(40, 5, 4)
        boxes = torch.tensor([[0, 0, 14, 14], [8, 16, 8, 8], [26, 26, 14, 14]])
        covered = grid.covered_by(boxes)
        torch.testing.assert_close(covered.sum(1), torch.ones(3))
        assert covered[1].view(5, 5)[1, 2] == 1
        assert covered[0].view(5, 5)[0, 0] == pytest.approx(64 / 196)
        assert covered[0].view(5, 5)[1, 1] == pytest.approx(36 / 196)


def test_only_what_concerns_the_cache_is_blamed_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> Arrays:
        raise PermissionError("secret.png")

    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PermissionError, match=r"secret\.png"):
        cached_splits("mine", {}, unreadable)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "file"))
    with pytest.raises(RoutingError, match="the data cache cannot be written"):
        cached_splits("mine", {}, lambda: {})


def test_a_cache_that_lost_a_file_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path))
    built: list[int] = []

    def build() -> Arrays:
        built.append(1)
        images = np.zeros((2, 1, 4, 4), np.uint8)
        return {name: {"images": images, "targets": np.arange(2)} for name in ("train", "val")}

    for lost in (None, "train/images.npy", "val", "files.txt"):
        cached_splits("mine", {}, build)
        found = cached_splits("mine", {}, build)
        assert {name: len(split) for name, split in found.items()} == {"train": 2, "val": 2}
        if lost is not None:
            (path,) = tmp_path.glob(f"mine-*/{lost}")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            assert len(cached_splits("mine", {}, build)) == 2
    assert len(built) == 4


def test_more_images_than_memory_are_refused_before_any_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routing.data.room.free_memory", lambda: 10**9)
    with pytest.raises(InputError, match=r"num_val 1000000: drawing takes 21.4 GB .*1.0 GB are free"):
        RunConfig.from_dict({"dataset.num_val": 1_000_000}).dataset.load()
    monkeypatch.setattr("routing.data.room.free_memory", lambda: None)  # a system that does not say
    check_room({"val": 10**9}, 10**9)
