"""Saved runs: names side by side, and what their weights say of the data they were trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.runner import run
from routing.saved import distinct_names, evaluate_saved, load


def test_names_are_as_long_as_it_takes_to_tell_runs_apart() -> None:
    assert distinct_names([Path("a/seed0"), Path("a/seed1")]) == ["seed0", "seed1"]
    assert distinct_names([Path("a/seed0"), Path("b/seed0")]) == ["a-seed0", "b-seed0"]
    with pytest.raises(InputError, match="given twice"):
        distinct_names([Path("a/seed0"), Path("a/../a/seed0")])


@pytest.fixture
def photographs(folder: Path) -> Path:
    """Two classes of plain images, dark and light."""
    for split in ("train", "val"):
        for name, shade in (("dark", 0), ("light", 200)):
            (folder / "images" / split / name).mkdir(parents=True)
            for index in range(8):
                image = Image.new("RGB", (32, 32), (shade + index, shade, shade))
                image.save(folder / "images" / split / name / f"{index}.png")
    return folder / "images"


def trained(photographs: Path, folder: Path) -> Path:
    keys: dict[str, Any] = {"dataset.name": "image_folder", "dataset.root": str(photographs)}
    keys |= {"training.num_epochs": 1, "training.batch_size": 4, "evaluation.operating_points": False}
    run(RunConfig.from_dict(keys), out=folder / "run")
    return folder / "run"


def test_a_model_is_loaded_where_its_images_are_not(photographs: Path, folder: Path) -> None:
    saved = trained(photographs, folder)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    before = load(saved)
    expected = before.predict(images).prediction
    photographs.rename(folder / "gone")
    after = load(saved)
    assert after.info == before.info
    assert after.info.class_names == ("dark", "light")
    assert torch.equal(after.predict(images).prediction, expected)


def test_classes_in_another_order_are_refused(photographs: Path, folder: Path) -> None:
    saved = trained(photographs, folder)
    assert len(evaluate_saved(saved)) == 1
    for split in ("train", "val"):
        (photographs / split / "dark").rename(photographs / split / "shadow")
    with pytest.raises(InputError, match="trained on the classes dark, light; the data set now has light, shadow"):
        evaluate_saved(saved)


def test_what_weights_say_of_their_data_is_read_back_or_named() -> None:
    info = DataInfo("classification", 3, 32, 2, (0.5,) * 3, (0.25,) * 3, ("a", "é"), 4, 2)
    assert DataInfo.from_json(info.to_json()) == info
    for text in ("{", "[]", '{"unknown": 1}'):
        with pytest.raises(InputError, match="what the weights say of their data is not readable"):
            DataInfo.from_json(text)


@pytest.mark.parametrize("key", ["patch_grid_size", "channels", "input_size", "num_outputs"])
@pytest.mark.parametrize("value", [0, -1, "4", 1.5, None])
def test_a_description_of_data_that_no_data_have_is_refused(key: str, value: object) -> None:
    whole = json.loads(DataInfo("classification", 1, 8, 10, (0.5,), (0.25,)).to_json())
    with pytest.raises(InputError, match=f"what the weights say of their data is not readable: {key} is "):
        DataInfo.from_json(json.dumps({**whole, key: value}))


@pytest.mark.parametrize("text", ["[" * 200_000, "{}", "3", '{"task": 1}'])
def test_a_description_of_data_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="what the weights say of their data is not readable"):
        DataInfo.from_json(text)
