"""KonIQ-10k's form: the real loader on a small folder, and one clear line for everything that is wrong with it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from routing.config.run import RunConfig
from routing.data import ImageData
from routing.data.cache import cache_folder
from routing.data.images import StoredImages
from routing.data.quality_sections import Koniq10kSection
from routing.errors import InputError
from routing.runner import run

COLUMNS = ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "set"]
SETS = ["training"] * 8 + ["validation"] * 4 + ["test"] * 4
Rows = list[dict[str, Any]]


def rows_of(sets: list[str], prefix: str = "") -> Rows:
    return [
        {
            **dict.fromkeys(("c1", "c2", "c3", "c4", "c5"), 0.2),
            "image_name": f"{prefix}{100 + index}.jpg",
            "c_total": 100,
            "MOS": 20 + 4.5 * index,
            "SD": 0.5,
            "set": word,
        }
        for index, word in enumerate(sets)
    ]


def write(root: Path, rows: Rows, columns: list[str] = COLUMNS, name: str = "koniq10k_distributions_sets.csv") -> None:
    folder = root / "1024x768"
    folder.mkdir(parents=True, exist_ok=True)
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        path = folder / row["image_name"]
        seed = int.from_bytes(row["image_name"].encode(), "little") % 2**32
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        if path.resolve().parent == folder.resolve():
            Image.fromarray(pixels).resize((128, 96), Image.Resampling.BICUBIC).save(path, quality=90)


def section(root: Path, **keys: Any) -> Koniq10kSection:
    return Koniq10kSection(root=root, input_size=48, input_width=64, **keys)


@pytest.fixture
def root(folder: Path) -> Path:
    write(folder, rows_of(SETS))
    return folder


def test_official_split_and_scaled_mos(root: Path) -> None:
    data = section(root).load()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 4, "test": 4}
    assert data["train"].images.shape == (8, 3, 48, 64)
    torch.testing.assert_close(data["val"].targets, torch.tensor([0.56, 0.605, 0.65, 0.695]))
    with Image.open(root / "1024x768" / "108.jpg") as image:
        expected = np.asarray(image.resize((64, 48), Image.Resampling.BILINEAR), float)
    assert np.abs(data["val"].images[0].permute(1, 2, 0).numpy() - expected).mean() < 4  # decoded at half size


def test_workers_decode_the_same(root: Path) -> None:
    alone = section(root).load()
    shifted = section(root, workers=2, mos_min=-1)  # another range: not the cached arrays
    together: ImageData = shifted.load()
    for name in ("train", "val", "test"):
        assert torch.equal(alone[name].images[:], together[name].images[:])


def test_images_are_mapped_not_read(root: Path) -> None:
    before = set(cache_folder().glob("koniq-*/images.npy"))
    images = section(root).load()["train"].images
    assert isinstance(images, StoredImages)
    assert len(set(cache_folder().glob("koniq-*/images.npy")) - before) == 1


def test_a_changed_image_is_read_again(root: Path) -> None:
    before = section(root).load()["train"].images[0].clone()
    Image.new("RGB", (128, 96), (200, 10, 10)).save(root / "1024x768" / "100.jpg")
    assert not torch.equal(section(root).load()["train"].images[0], before)


Spoil = Callable[[Path, Rows], list[str] | None]


def _other_columns(root: Path, rows: Rows) -> list[str]:
    return ["image_id", "MOS_zscore", "set"]


def _leak(root: Path, rows: Rows) -> None:
    rows[8]["image_name"] = "100.jpg"


def _twice(root: Path, rows: Rows) -> None:
    rows[1]["image_name"] = "100.jpg"


def _mos_too_high(root: Path, rows: Rows) -> None:
    rows[3]["MOS"] = 104.5


def _mos_is_a_word(root: Path, rows: Rows) -> None:
    rows[3]["MOS"] = "good"


def _mos_is_nan(root: Path, rows: Rows) -> None:
    rows[3]["MOS"] = "nan"


def _mos_of_five(root: Path, rows: Rows) -> None:
    for row in rows:
        row["MOS"] = row["MOS"] / 20


def _other_set(root: Path, rows: Rows) -> None:
    rows[0]["set"] = "trainning"


def _no_validation(root: Path, rows: Rows) -> None:
    for row in rows:
        row["set"] = {"validation": "test"}.get(row["set"], row["set"])


def _outside(root: Path, rows: Rows) -> None:
    rows[0]["image_name"] = "../secret.jpg"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_columns, r"no column 'image_name'.*wanted: image_name, MOS, set; found: image_id, MOS_zscore, set"),
        (_leak, r"csv:10: image '100.jpg' is in sets train and val"),
        (_twice, r"csv:3: image '100.jpg' is in set train twice"),
        (_mos_too_high, r"csv:5: MOS 104.5 of '103.jpg' is out of range \(valid: 0 to 100"),
        (_mos_is_a_word, r"csv:5: MOS of '103.jpg' is not a number: 'good'"),
        (_mos_is_nan, r"csv:5: MOS nan of '103.jpg' is out of range"),
        (_mos_of_five, r"dataset.mos_max 100: no MOS is above 4.375; give mos_min and mos_max"),
        (_other_set, r"csv:2: set 'trainning'; did you mean 'training'\?"),
        (_no_validation, r"no row of set 'validation'"),
        (_outside, r"image_name '../secret.jpg' is not a name inside the folder of images"),
    ],
)
def test_bad_scores(folder: Path, spoil: Spoil, message: str) -> None:
    rows = rows_of(SETS)
    columns = spoil(folder, rows) or COLUMNS
    write(folder, rows, columns)
    with pytest.raises(InputError, match=message):
        section(folder).load()


def test_missing_images_are_named(root: Path) -> None:
    (root / "1024x768" / "101.jpg").unlink()
    (root / "1024x768" / "109.jpg").unlink()
    with pytest.raises(InputError, match=r"2 of 16 images \(101.jpg, 109.jpg\) are missing"):
        section(root).load()


@pytest.mark.parametrize("content", [b"", b"no picture at all", None])
def test_corrupt_images_are_named(root: Path, content: bytes | None) -> None:
    path = root / "1024x768" / "102.jpg"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(InputError, match=r"1024x768/102\.jpg: not a readable image: .*; mend or remove it"):
        section(root).load()


def test_one_photograph_under_two_names_is_a_leak(root: Path) -> None:
    folder = root / "1024x768"
    (folder / "109.jpg").write_bytes((folder / "100.jpg").read_bytes())
    with pytest.raises(InputError, match=r"'109.jpg' of set val is the same photograph as '100.jpg' of set train"):
        section(root).load()


def test_no_csv_no_folder(tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError, match=r"dataset.csv: .*no such file"):
        section(tmp_path / "nowhere").load()
    with pytest.raises(InputError, match=r"dataset.images: .*512x384: no such folder"):
        section(root, images=Path("512x384")).load()
    (root / "koniq10k_distributions_sets.csv").write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(InputError, match=r"not a CSV in UTF-8"):
        section(root).load()


def test_empty_range_of_mos(root: Path) -> None:
    with pytest.raises(InputError, match=r"mos_min 5 must be below mos_max 1"):
        RunConfig.from_dict(
            {"dataset": {"name": "koniq10k", "root": str(root), "mos_min": 5, "mos_max": 1}, "model.name": "hyperiqa"}
        )


def koniq_run(root: Path, **dataset: Any) -> RunConfig:
    return RunConfig.from_dict(
        {
            "dataset": {"name": "koniq10k", "root": str(root), "input_size": 48, "input_width": 64, **dataset},
            "model": {"name": "hyperiqa", "crop_size": 32, "backbone": {"widths": [4, 4, 8, 8]}},
            "training": {"num_epochs": 1, "batch_size": 4},
        }
    )


def test_trains_and_tests_across_data(root: Path, tmp_path: Path) -> None:
    rows = rows_of(["test"] * 6, "spaq")
    write(tmp_path / "spaq", rows, ["image_name", "MOS"], "spaq.csv")
    cross = {"root": str(tmp_path / "spaq"), "csv": "spaq.csv"}
    record = run(koniq_run(root, cross_test=cross))
    assert {"val_srcc", "val_plcc", "val_rmse", "cross_srcc", "cross_plcc", "cross_rmse"} <= set(record.metrics)
    assert "cross_srcc" not in run(koniq_run(root)).metrics


def test_cross_test_says_which_data_is_wrong(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset.cross_test.csv: .*no such file"):
        run(koniq_run(root, cross_test={"root": str(tmp_path)}))
