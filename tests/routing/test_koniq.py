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
from routing.data.koniq import read_scores
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


@pytest.mark.parametrize("resize", ["shortest", "longest_pad"])
def test_photographs_of_another_shape_keep_it(root: Path, resize: str) -> None:
    chosen = section(root, resize=resize, interpolation="bicubic", bit_depth=8)
    image = Image.new("RGB", (300, 200), "white")
    pixels = chosen.fit(image)
    assert pixels is not None
    assert pixels.shape == (3, 48, 64)
    if resize == "shortest":
        assert (pixels == 255).all()
    else:  # 64 wide, 43 high, on the mean
        assert (pixels[:, 3:44] == 255).all()
        assert pixels[:, 0, 0].tolist() == pixels[:, -1, -1].tolist() == [124, 116, 104]


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


FIELD = {
    # header and form of the public files; the values are drawn
    "SPAQ": ("Image name", "MOS", (0, 100), None, {}),
    "KADID": ("dist_img", "dmos", (1, 5), "ref_img", {"split": {"group": "ref_img"}}),
    "LIVE in the wild": ("image", "mos", (0, 100), None, {}),
}


def _drawn(root: Path, name: str, count: int = 50) -> dict[str, Any]:
    """Write a data set in the form of its public file; return the keys that read it."""
    image, score, (low, high), group, keys = FIELD[name]
    rng = np.random.default_rng(0)
    rows = [
        {"image_name": f"I{index:02d}.png", image: f"I{index:02d}.png", score: rng.uniform(low, high)}
        | ({group: f"R{index // 5:02d}.png"} if group else {})
        for index in range(count)
    ]
    write(root, rows, [key for key in rows[0] if key != "image_name"], "scores.csv")
    scale = {"mos_min": low, "mos_max": high, "csv": "scores.csv"}
    return {**scale, **keys, "columns": {"image": image, "score": score}}


@pytest.mark.parametrize("name", FIELD)
def test_other_public_data_go_through_the_csv(name: str, folder: Path) -> None:
    """No column of sets: cut by seed, 80 / 20; without a test split a run trains."""
    keys = _drawn(folder, name)
    data = section(folder, **keys).load()
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 40, "val": 10}
    record = run(koniq_run(folder, **keys))
    assert "val_krcc" in record.metrics
    with pytest.raises(InputError, match=r"no split 'test'"):
        data["test"]


def test_a_group_is_never_cut_and_the_seed_decides(folder: Path) -> None:
    keys = _drawn(folder, "KADID", count=40)
    keys["split"] = {"group": "ref_img", "val_fraction": 0.25, "test_fraction": 0.25}
    cuts = []
    for seed in range(4):
        rows = read_scores(section(folder, seed=seed, **keys), "dataset")
        groups = {split: {int(row.name[1:3]) // 5 for row in part} for split, part in rows.items()}
        assert {split: len(part) for split, part in rows.items()} == {"train": 20, "val": 10, "test": 10}
        assert sum(len(part) for part in groups.values()) == 8  # every reference in one split only
        cuts.append(tuple(sorted(groups["val"])))
    assert len(set(cuts)) > 1
    line = section(folder, **keys).describe()
    assert line is not None
    assert "val 10" in line
    assert "cut by dataset.seed 0, rows of one ref_img together" in line


def test_one_store_serves_every_cut(folder: Path) -> None:
    keys = _drawn(folder, "SPAQ")
    before = set(cache_folder().glob("koniq-*/images.npy"))
    data = [section(folder, seed=seed, **keys).load() for seed in (0, 1)]
    assert len(set(cache_folder().glob("koniq-*/images.npy")) - before) == 1
    assert not torch.equal(data[0]["val"].targets, data[1]["val"].targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"image": "name"}}, r"no column 'name'.*wanted: name, MOS"),
        ({"columns": {"image": "Image name", "set": "fold"}}, r"no column 'fold'.*wanted: Image name, MOS, fold"),
        ({"split": {"group": "ref"}}, r"no column 'ref'"),
    ],
)
def test_columns_that_are_not_there(folder: Path, changes: dict[str, Any], message: str) -> None:
    keys = {**_drawn(folder, "SPAQ"), **changes}
    with pytest.raises(InputError, match=message):
        section(folder, **keys).load()


def test_nothing_left_to_train_on(folder: Path) -> None:
    with pytest.raises(InputError, match=r"dataset.split: val_fraction 0.6 and test_fraction 0.5 leave nothing"):
        koniq_run(folder, split={"val_fraction": 0.6, "test_fraction": 0.5})


KONIQ = """\
image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set
10526881085.jpg,0.0,0.385321100917,0.577981651376,0.0275229357798,0.00917431192661,109,44.4598214286,0.580870730284,test
302681636.jpg,0.0,0.153153153153,0.630630630631,0.216216216216,0.0,111,53.5762711864,0.607218386344,test
4699352200.jpg,0.0,0.018691588785,0.392523364486,0.579439252336,0.00934579439252,107,71.9345794393,0.550083753101,test
5064264405.jpg,0.0,0.12037037037,0.62037037037,0.259259259259,0.0,108,58.9597457627,0.603081391778,training
5097621606.jpg,0.0,0.04,0.61,0.34,0.01,100,62.2316513761,0.566399223877,validation
6530161213.jpg,0.0,0.153153153153,0.603603603604,0.243243243243,0.0,111,54.7648305085,0.625947275583,test
6907198605.jpg,0.0,0.00970873786408,0.582524271845,0.398058252427,0.00970873786408,103,66.2699115044,0.532049186947,training
7957309250.jpg,0.0,0.03,0.55,0.41,0.01,100,63.5810810811,0.568535243615,training
8666962145.jpg,0.0,0.0952380952381,0.590476190476,0.304761904762,0.00952380952381,105,58.6769911504,0.624147770612,training
9197349207.jpg,0.0,0.118811881188,0.613861386139,0.257425742574,0.00990099009901,101,58.5957943925,0.628214505839,training
"""


def test_the_real_file_of_koniq_10k(folder: Path) -> None:
    """Header and ten rows drawn from koniq10k_distributions_sets.csv; only the photographs are not real."""
    images = folder / "1024x768"
    images.mkdir(parents=True)
    for number, line in enumerate(KONIQ.splitlines()[1:]):
        colours = np.random.default_rng(number).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(colours).save(images / line.split(",")[0])
    (folder / "koniq10k_distributions_sets.csv").write_text(KONIQ)
    rows = read_scores(section(folder), "dataset")
    assert {split: len(part) for split, part in rows.items()} == {"train": 5, "val": 1, "test": 4}
    first = KONIQ.splitlines()[1].split(",")
    found = next(row for part in rows.values() for row in part if row.name == first[0])
    assert found.quality == pytest.approx(float(first[7]) / 100)
    assert section(folder).load()["train"].images.shape[1:] == (3, 48, 64)
