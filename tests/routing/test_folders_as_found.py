"""Folders and files as people really have them: every image is used, refused, or said to be left out."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from routing.cli import main
from routing.config.run import RunConfig
from routing.config.section import DatasetSection
from routing.data import ImageData
from routing.data.decode import brightest
from routing.data.view import View
from routing.errors import InputError


def paint(path: Path, colour: tuple[int, int, int] = (200, 10, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), colour).save(path)


def paint_classes(root: Path, count: int = 4, names: tuple[str, ...] = ("cat", "dog")) -> None:
    for label, name in enumerate(names):
        for index in range(count):
            paint(root / name / f"{index:02}.png", (100 * label, 7 * index, sum(map(ord, root.name)) % 256))


def section(root: Path, **keys: Any) -> DatasetSection:
    values = {f"dataset.{key}": value for key, value in {"input_size": 8, **keys}.items()}
    return RunConfig.from_dict({"dataset.name": "image_folder", "dataset.root": str(root), **values}).dataset


def load(root: Path, **keys: Any) -> ImageData:
    return section(root, **keys).load()


def sizes(root: Path, **keys: Any) -> dict[str, int]:
    return {name: len(split) for name, split in load(root, **keys).splits.items()}


@pytest.mark.parametrize(
    "names", [("train", "valid"), ("Train", "Val"), ("training_set", "validation"), ("TRAIN", "dev")]
)
def test_splits_go_by_many_names(folder: Path, names: tuple[str, str]) -> None:
    paint_classes(folder / names[0], 5)
    paint_classes(folder / names[1], 2)
    assert sizes(folder) == {"train": 10, "val": 4}
    assert f"train 10 ({names[0]}/), val 4 ({names[1]}/)" in section(folder).describe()


def test_a_class_may_be_called_train(folder: Path) -> None:
    paint_classes(folder, 6, ("bus", "car", "train"))
    assert load(folder).info.class_names == ("bus", "car", "train")


def test_images_in_folders_of_a_class_are_read(folder: Path) -> None:
    paint_classes(folder / "train", 4)
    for index in range(3):
        paint(folder / "train" / "cat" / "images" / "more" / f"{index}.png", (index, 99, 99))
    assert sum(sizes(folder).values()) == 11


def twice(root: Path) -> None:
    paint_classes(root / "train")
    paint_classes(root / "val")
    paint_classes(root / "valid")


def misspelt(root: Path) -> None:
    paint_classes(root / "train")
    paint_classes(root / "vlaid")


def wrapped(root: Path) -> None:
    paint_classes(root / "pets" / "train")
    paint_classes(root / "pets" / "test")


def inside_classes(root: Path) -> None:
    for name in ("cat", "dog"):
        paint_classes(root / name, names=("train", "test"))


def seg(root: Path) -> None:
    paint_classes(root / "seg_train")
    paint_classes(root / "seg_test")


def loose(root: Path) -> None:
    paint_classes(root / "train")
    paint(root / "train" / "lost.png")


def dead_image(root: Path) -> None:
    paint_classes(root / "train")
    (root / "train" / "cat" / "zz.png").symlink_to(root / "nowhere.png")


def dead_class(root: Path) -> None:
    paint_classes(root / "train", names=("cat", "dog", "emu"))
    shutil.rmtree(root / "train" / "emu")
    (root / "train" / "emu").symlink_to(root / "nowhere")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (twice, "'val' and 'valid' are both the val split; keep one"),
        (misspelt, r"folder 'vlaid' beside train holds images and is no split; did you mean 'valid'\?"),
        (wrapped, r"found 1 \(pets\); did you mean .*/pets\?"),
        (inside_classes, "cat/test: a split inside a class folder; dataset.root must hold test/<class>/"),
        (seg, "'seg_test' holds folders and is named like a split; call the folders of splits train, val and test"),
        (loose, r"train: 1 of its images lie in no class folder \(lost.png\)"),
        (dead_image, "zz.png: a link to .*nowhere.png, which is not there"),
        (dead_class, "emu: a link to .*nowhere, which is not there"),
    ],
)
def test_what_is_not_clear_is_refused(folder: Path, make: Callable[[Path], None], message: str) -> None:
    make(folder)
    with pytest.raises(InputError, match=message) as error:
        load(folder)
    assert len(str(error.value)) < 400


def test_what_is_left_out_is_said(folder: Path) -> None:
    paint_classes(folder / "train", 10)
    for index in range(3):
        paint(folder / "test" / f"{index}.png")
    paint(folder / "preview.png")
    (folder / "train" / "cat" / "a.heic").write_bytes(b"x")
    (folder / "train" / "cat" / "._00.png").write_bytes(b"a resource fork")
    paint(folder / "train" / "__MACOSX" / "cat" / "0.png")
    line = section(folder).describe()
    assert "test/ not used: 3 images without class folders" in line
    assert "not used: 1 images beside the splits (preview.png)" in line
    assert "not used: 1 .heic files, which are not read" in line
    assert load(folder).info.class_names == ("cat", "dog")
    assert sizes(folder) == {"train": 18, "val": 2}


def test_splits_cut_by_seed_are_stratified(folder: Path) -> None:
    for name, count in (("many", 60), ("few", 20), ("rare", 2), ("one", 1)):
        for index in range(count):
            paint(folder / name / f"{index:02}.png", (index, len(name), count))
    data = load(folder, val_fraction=0.2, test_fraction=0.1)
    counts = {name: split.targets.bincount(minlength=4).tolist() for name, split in data.splits.items()}
    assert data.info.class_names == ("few", "many", "one", "rare")
    assert counts["val"][:2] == [4, 12]
    assert counts["test"][:2] == [2, 6]
    assert min(counts["train"]) >= 1  # a class keeps an image to train on
    assert sum(map(sum, counts.values())) == 83
    first = load(folder, num_train=12)["train"].targets.bincount(minlength=4)
    assert first[1] in (8, 9, 10)
    assert "; no train images of few, one, rare" in section(folder, num_train=2).describe()


def test_every_run_and_dry_run_begins_with_the_splits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint_classes(folder / "train", 10)
    keys = ["--dataset.name", "image_folder", "--dataset.root", str(folder), "--dataset.input_size", "16"]
    assert main(["train", *keys, "--training.num_epochs", "1", "--out", str(folder / "run"), "--no-figures"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    splits = "train 18 (the rest of train/), val 2 (0.1 of train/, by dataset.seed 0)"
    assert first.endswith(f"2 classes; images: {splits}; seen at 16 x 16 pixels")
    assert main(["sweep", str(write_study(folder)), "--dry-run"]) == 0
    assert first in capsys.readouterr().out.splitlines()


def write_study(root: Path) -> Path:
    path = root / "study.yaml"
    path.write_text(
        f"kind: sweep\nname: s\nbase: {{dataset: {{name: image_folder, root: '{root}', input_size: 16}}}}\n"
        "space: {training.learning_rate: {float: [1.0e-4, 1.0e-2]}}\ntrials: 2\n"
        "objectives: [{metric: val_accuracy, goal: maximize, reference: 0.1}]\n"
    )
    return path


@pytest.mark.parametrize("address", [[], ["--address", "10.0.0.1:6379"]])
def test_a_damaged_image_fails_a_sweep_before_any_trial(
    folder: Path, address: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    paint_classes(folder / "train", 10)
    _cut(folder / "train" / "cat" / "03.png")
    assert main(["sweep", str(write_study(folder)), "--out", str(folder / "results"), *address]) == 2
    assert "train/cat/03.png: not a readable image" in capsys.readouterr().err
    assert not (folder / "results").exists()


def odd_exif(orientation: int) -> bytes:
    """EXIF with the orientation and an ExposureValue of -1/0, which cannot be written back."""
    entry = struct.pack("<HHII", 0x9203, 10, 1, 8 + 2 + 2 * 12 + 4)
    body = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + entry
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + body + struct.pack("<Iii", 0, -1, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_and_nothing_else_of_exif(folder: Path, orientation: int) -> None:
    shown = np.zeros((16, 16, 3), np.uint8)
    shown[:8, :8] = 250  # as a person is to see it: bright at the top left
    turn = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]  # the way back
    back: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }
    path = folder / "turned.jpg"
    Image.fromarray(np.ascontiguousarray(back[turn](shown))).save(path, exif=odd_exif(orientation), quality=95)
    pixels = View(16, 16).read(str(path))
    assert pixels[:, :7, :7].min() > 200
    assert pixels[:, 9:, :].max() < 60
    assert pixels[:, :, 9:].max() < 60


def _eps(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")


def _dds(path: Path) -> None:
    path.write_bytes(b"DDS " + b"\x7c\0\0\0" + b"\xff" * 200)


def _avif(path: Path) -> None:
    path.write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\0" * 64)


def _bomb(path: Path) -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [_eps, _dds, _avif, _bomb, _cut, _empty])
def test_a_damaged_file_is_named_in_one_line_or_left_out(
    folder: Path, spoil: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    paint_classes(folder / "train", 10)
    spoil(folder / "train" / "cat" / "03.png")
    with pytest.raises(InputError, match=r"train/cat/03\.png: not a readable image: .*dataset.on_damaged skip"):
        section(folder).check()
    data = load(folder, on_damaged="skip")
    assert sum(len(split) for split in data.splits.values()) == 19
    assert f"left out: {folder}/train/cat/03.png: " in capfd.readouterr().err


def test_all_damaged_files_are_counted_and_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint_classes(folder / "train", 10)
    for index in range(3):
        _cut(folder / "train" / "dog" / f"0{index}.png")
    with pytest.raises(InputError, match=r"dog/00\.png: not .*; nor are train/dog/01\.png, train/dog/02\.png; mend"):
        load(folder)
    monkeypatch.setattr(View, "read", lambda self, path: pytest.fail("decoded again"))
    with pytest.raises(InputError, match=r"dog/00\.png"):
        load(folder)
    assert sum(sizes(folder, on_damaged="skip").values()) == 17


def test_a_file_that_may_not_be_read_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint_classes(folder / "train", 10)
    real = Image.open

    def refuse(path: Any, *args: Any, **keys: Any) -> Any:
        if str(path).endswith("cat/03.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **keys)

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match=r"cat/03\.png: cannot be read: Permission denied"):
        load(folder, on_damaged="skip")


@pytest.mark.parametrize(("bits", "used"), [(9, 10), (10, 10), (12, 12), (14, 14), (16, 16)])
def test_wide_grey_has_one_scale_for_a_data_set(
    folder: Path, bits: int, used: int, capfd: pytest.CaptureFixture[str]
) -> None:
    values = [2**bits - 1, 2 ** (bits - 1), 255, 256]
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
        for index, value in enumerate(values):
            Image.fromarray(np.full((8, 8), value, np.uint16)).save(folder / "train" / name / f"{index}.png")
    data = load(folder, input_size=8, val_fraction=0.2)
    found = torch.cat([split.images[:] for split in data.splits.values()]).unique().tolist()
    assert found == sorted({value >> (used - 8) for value in values})
    assert f"up to {2**bits - 1:,}, are read as {used} bits" in capfd.readouterr().err
    assert brightest(str(folder / "train" / "cat" / "0.png")) == 2**bits - 1
    with pytest.raises(InputError, match=r"a grey value of \d+ is above dataset.bit_depth 8"):
        load(folder, bit_depth=8)


@pytest.mark.parametrize(("background", "expected"), [("white", 255), ("#102030", 16)])
def test_transparent_pixels_show_the_background(folder: Path, background: str, expected: int) -> None:
    hidden = Image.new("RGBA", (8, 8), (90, 8, 7, 0))
    hidden.save(folder / "rgba.png")
    hidden.convert("LA").save(folder / "la.png")
    flat = Image.new("P", (8, 8))
    flat.putpalette([90, 8, 7] * 256)
    flat.save(folder / "p.png", transparency=0)
    Image.new("RGB", (8, 8), (90, 8, 7)).save(folder / "rgb.png", transparency=(90, 8, 7))
    view = View(8, 8, section(folder, background=background).background_rgb)  # type: ignore[attr-defined]
    for name in ("rgba", "la", "p", "rgb"):
        assert view.read(str(folder / f"{name}.png"))[0].tolist() == [[expected] * 8] * 8, name


def test_a_background_that_is_no_colour(folder: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.background 'whyte' is no colour"):
        section(folder, background="whyte")


def test_files_give_the_pixels_of_the_cache(folder: Path) -> None:
    paint_classes(folder / "train", 10)
    cached = load(folder)
    for workers in (0, 2):
        streamed = load(folder, storage="files", workers=workers)
        assert streamed.identity() == cached.identity()
        for name, split in cached.splits.items():
            assert torch.equal(streamed[name].images[:], split.images[:])
            assert torch.equal(torch.cat(list(streamed[name].images.split(4))), split.images[:])
