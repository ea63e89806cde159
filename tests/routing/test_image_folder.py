"""Class folders of images: splits, sizes, odd files, and the errors a user can cause."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from routing.config.run import RunConfig
from routing.data import ImageData
from routing.errors import InputError
from routing.runner import run
from routing.saved import load as load_run
from search_spaces.ledger.tables import write_table


def paint(path: Path, colour: tuple[int, int, int] = (200, 10, 30), size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def paint_class_folders(root: Path, count: int = 10) -> None:
    for label, name in enumerate(("cat", "dog")):
        for index in range(count):
            paint(root / name / f"{index:02}.png", (100 * label, 5 * index, 50))


def load(root: Path, **keys: Any) -> ImageData:
    values = {f"dataset.{key}": value for key, value in keys.items()}
    return RunConfig.from_dict({"dataset.name": "image_folder", "dataset.root": str(root), **values}).dataset.load()


def test_declared_splits_are_kept(folder: Path) -> None:
    for split in ("train", "val", "test"):
        paint_class_folders(folder / split, {"train": 5, "val": 2, "test": 3}[split])
    data = load(folder, input_size=8)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 10, "val": 4, "test": 6}
    assert data.info.class_names == ("cat", "dog")
    assert data["train"].images.dtype == torch.uint8
    assert data["train"].images.shape == (10, 3, 8, 8)
    for split in data.splits.values():
        assert torch.equal(split.images[:, 0, 0, 0], (100 * split.targets).to(torch.uint8))  # red is 100 * class
        assert split.targets.unique().tolist() == [0, 1]
        assert split.targets.tolist() != sorted(split.targets.tolist())  # not class by class


def test_validation_is_cut_by_seed_and_does_not_depend_on_num_train(folder: Path) -> None:
    paint_class_folders(folder / "train", 10)
    data, again, other = load(folder), load(folder), load(folder, seed=1)
    assert len(data["val"]) == 2
    assert len(data["train"]) == 18
    assert "test" not in data.splits
    assert torch.equal(data["val"].images[:], again["val"].images[:])
    assert not torch.equal(data["train"].images[:], other["train"].images[:])
    few = load(folder, num_train=5)
    assert torch.equal(few["train"].images[:], data["train"].images[:5])
    assert torch.equal(few["val"].images[:], data["val"].images[:])


def test_class_folders_alone_are_cut_into_three_disjoint_splits(folder: Path) -> None:
    paint_class_folders(folder, 10)
    data = load(folder, val_fraction=0.2, test_fraction=0.3)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 10, "val": 4, "test": 6}
    seen = torch.cat([split.images[:] for split in data.splits.values()]).flatten(1)[:, :].unique(dim=0)
    assert len(seen) == 20


def test_odd_files_are_read_as_a_person_sees_them(folder: Path) -> None:
    paint_class_folders(folder / "train", 3)
    odd = folder / "train" / "cat"
    Image.new("L", (30, 7), 90).save(odd / "a-grey.PNG")
    Image.new("RGBA", (5, 9), (9, 8, 7, 0)).save(odd / "b-alpha.png")
    Image.new("P", (6, 6)).save(odd / "c-palette.gif")
    (odd / "notes.txt").write_text("not an image")
    turned = Image.fromarray(np.repeat(np.array([[255, 0]], np.uint8), 2, axis=0)).convert("RGB")  # bright on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise, bright side on top
    turned.resize((16, 16), Image.Resampling.NEAREST).save(odd / "d-turned.jpg", exif=exif, quality=95)
    for index in range(4):
        paint(folder / "val" / "dog" / f"{index}.png")
    data = load(folder, input_size=8)
    assert len(data["train"]) == 10
    grey = data["train"].images[:, 0].float()
    upright = (grey[:, :3].mean((1, 2)) > 200) & (grey[:, -3:].mean((1, 2)) < 50)
    assert upright.sum() == 1


def broken(root: Path) -> None:
    (root / "train" / "cat" / "zz.png").write_bytes(b"not a picture")


def truncated(root: Path) -> None:
    path = root / "train" / "dog" / "00.png"
    path.write_bytes(path.read_bytes()[:60])


def unknown_class(root: Path) -> None:
    paint(root / "val" / "dgo" / "0.png")


def empty_class(root: Path) -> None:
    (root / "train" / "emu").mkdir()


def no_images(root: Path) -> None:
    (root / "val" / "cat").mkdir(parents=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken, r"zz\.png: not a readable image"),
        (truncated, r"00\.png: not a readable image"),
        (unknown_class, r"class folder 'dgo' is not in train/; did you mean 'dog'\? \(valid: cat, dog\)"),
        (empty_class, r"train/emu: no images in this class folder .*; add some, or remove the folder"),
        (no_images, r"val: no images in its class folders \(extensions: \.jpg"),
    ],
)
def test_damaged_folders(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    paint_class_folders(folder / "train", 4)
    damage(folder)
    with pytest.raises(InputError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_folders_that_are_not_data(folder: Path) -> None:
    with pytest.raises(InputError, match=r"none: no such folder; it must hold train/<class>/"):
        load(folder / "none")
    with pytest.raises(InputError, match=r"at least two class folders, found 0 \(no folder\)"):
        load(folder)
    (folder / "one.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"found 0 \(no folder; images outside of class folders: 1\)"):
        load(folder)
    (folder / "test" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match=r"it has 'test' but no folder 'train'"):
        load(folder)
    with pytest.raises(InputError, match=r"'dataset\.root' is missing"):
        RunConfig.from_dict({"dataset.name": "image_folder"})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"patch_grid_size": 5},
            r"patch_grid_size 5 does not divide dataset\.input_size 32 \(valid: 1, 2, 4, 8, 16, 32\)",
        ),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"num_trian": 5}, r"did you mean 'dataset\.num_train'\?"),
    ],
)
def test_settings_that_cannot_be(folder: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folder, **keys)


def test_an_image_that_changes_is_read_again(folder: Path) -> None:
    paint_class_folders(folder / "train", 3)
    before = load(folder)
    paint(folder / "train" / "cat" / "00.png", (255, 255, 255))
    assert not torch.equal(load(folder)["train"].images[:], before["train"].images[:]) or not torch.equal(
        load(folder)["val"].images[:], before["val"].images[:]
    )


def test_images_that_move_to_another_class_are_read_again(folder: Path) -> None:
    paint_class_folders(folder / "train", 6)
    load(folder)
    (folder / "train" / "cat" / "00.png").rename(folder / "train" / "dog" / "99.png")
    moved = load(folder)
    assert sorted(torch.cat([moved["train"].targets, moved["val"].targets]).tolist()) == [0] * 5 + [1] * 7
    (folder / "train" / "cat").rename(folder / "train" / "zebra")  # what was class 0 is class 1 now
    renamed = load(folder)
    assert renamed.info.class_names == ("dog", "zebra")
    assert sorted(torch.cat([renamed["train"].targets, renamed["val"].targets]).tolist()) == [0] * 7 + [1] * 5


def test_hidden_folders_are_no_classes(folder: Path) -> None:
    paint_class_folders(folder / "train", 4)
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    assert load(folder).info.class_names == ("cat", "dog")


@pytest.mark.parametrize(("size", "grid"), [(32, 2), (64, 8)])
def test_a_run_on_images_of_any_size_and_grid(folder: Path, size: int, grid: int) -> None:
    paint_class_folders(folder, 20)
    keys = {
        "dataset": {"name": "image_folder", "root": str(folder), "input_size": size, "patch_grid_size": grid},
        "training": {"num_epochs": 1, "batch_size": 8, "augment": {"crop": 4, "flip": True}},
        "model.router.mode": "edge_energy",
    }
    record = run(RunConfig.from_dict(keys))
    assert 0 <= record.metrics["val_accuracy"] <= 1
    assert record.metrics["flops"] < record.metrics["flops_dense"]


def test_names_that_are_no_utf8_cost_neither_run_nor_table(folder: Path) -> None:
    """As unpacked from an archive of another system: a class folder in Latin-1, and an image in it."""
    name = os.fsdecode(b"M\xe4nner")
    paint_class_folders(folder / "images", 10)
    (folder / "images" / "dog").rename(folder / "images" / name)
    config = RunConfig.from_dict(
        {
            "dataset": {"name": "image_folder", "root": str(folder / "images"), "input_size": 16, "patch_grid_size": 2},
            "training.num_epochs": 1,
        }
    )
    run(config, out=folder / "run")
    assert load_run(folder / "run").info.class_names == (name, "cat")
    (folder / "images" / name / "00.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"M\\udce4nner.00\.png: not a readable image") as raised:
        load(folder / "images")
    write_table(folder / "trials.csv", [{"number": 0, "reason": str(raised.value), "dataset.root": name}])
    assert "not a readable image" in (folder / "trials.csv").read_text(encoding="utf-8")


def test_sixteen_bits_of_grey_keep_their_shades(folder: Path) -> None:
    paint_class_folders(folder / "train", 3)
    shades = (0, 64, 128, 255)
    for index, shade in enumerate(shades):
        deep = np.full((8, 8), 256 * shade + 255 * (shade == 255), np.uint16)
        Image.fromarray(deep).save(folder / "train" / "cat" / f"deep{index}.{'png' if index % 2 else 'tif'}")
    images = load(folder, input_size=8, val_fraction=0.1)["train"].images[:]
    images = torch.cat([images, load(folder, input_size=8, val_fraction=0.1)["val"].images[:]])
    grey = images[(images == images[:, :1]).flatten(1).all(1)]
    assert sorted(grey[:, 0, 0, 0].tolist()) == [*shades]


def test_eight_bits_in_a_wider_file_are_what_they_are(folder: Path) -> None:
    for name, shade in (("dark", 40), ("light", 200)):
        (folder / name).mkdir()
        for index in range(4):
            Image.fromarray(np.full((8, 8), shade, np.int32)).save(folder / name / f"{index}.tif")
    assert load(folder, input_size=8)["train"].images[:].unique().tolist() == [40, 200]


def test_pixels_that_are_no_shades_are_refused(folder: Path) -> None:
    paint_class_folders(folder / "train", 3)
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(folder / "train" / "cat" / "zz.tif")
    with pytest.raises(InputError, match=r"zz\.tif: not a readable image: floating-point pixels; convert it to 8"):
        load(folder)
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(folder / "train" / "cat" / "zz.tif")
    with pytest.raises(InputError, match=r"zz\.tif: not a readable image: pixels of more than 16 bits"):
        load(folder)
