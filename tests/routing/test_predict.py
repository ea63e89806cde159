"""``routing.load(...).predict``: the same image gives the same answer however it is given, or is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.data.given import as_pixels
from routing.errors import InputError
from routing.runner import run
from routing.saved import SavedRun, load

FOLDER = {"dataset.name": "image_folder", "dataset.input_size": 16}
COLOUR = DataInfo("classification", 3, 16, 2, (0.5,) * 3, (0.2,) * 3, ("dark", "light"))
GREY = DataInfo("classification", 1, 16, 10, (0.5,), (0.2,))


@pytest.fixture
def photograph(folder: Path) -> Path:
    """A file of 40 x 30 pixels that its camera turned."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / "photo.png", exif=exif)
    return folder / "photo.png"


def section(root: Path, **keys: Any) -> Any:
    return RunConfig.from_dict({**FOLDER, "dataset.root": str(root), **keys}).dataset


def test_a_file_is_read_as_in_training_and_a_picture_as_its_file(photograph: Path) -> None:
    from routing.data.image_folder import view_of

    data = section(photograph.parent)
    expected = torch.from_numpy(view_of(data).read(str(photograph)))[None]
    with Image.open(photograph) as picture:
        upright = np.asarray(picture.transpose(Image.Transpose.ROTATE_270))
        for given in (photograph, str(photograph), picture, upright, [photograph], expected):
            assert torch.equal(as_pixels(given, COLOUR, data), expected)
    assert as_pixels([photograph, upright], COLOUR, data).shape == (2, 3, 16, 16)


def test_mnist_is_resized_as_mnist_is() -> None:
    from routing.data.torchvision_data import resize

    data = RunConfig.from_dict({"dataset.name": "mnist", "dataset.root": "none", "dataset.input_size": 16}).dataset
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    expected = resize(torch.from_numpy(pixels)[None, None], 16)
    for given in (pixels, pixels[..., None], Image.fromarray(pixels), np.stack([pixels] * 3, -1)[..., :1]):
        assert torch.equal(as_pixels(given, GREY, data), expected)
    in_colour = Image.fromarray(np.stack([pixels] * 3, -1))  # grey, stored as RGB
    assert torch.equal(as_pixels(in_colour, GREY, data), expected)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (torch.rand(2, 3, 16, 16), r"a tensor of float32; .*uint8 pixels from 0 to 255 \(.*\(images \* 255\)"),
        (torch.zeros(2, 3, 40, 40, dtype=torch.uint8), r"shape \(2, 3, 40, 40\); this model takes \(B, 3, 16, 16\)"),
        (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), r"shape \(2, 1, 16, 16\)"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), r"shape \(3, 16, 16\)"),
        (np.zeros((16, 16, 3)), r"the image is an array of float64; .*\(image \* 255\)"),
        (np.zeros((16, 16, 3), np.int64), "an array of int64; this model takes uint8 pixels from 0 to 255$"),
        (np.zeros((16, 16), np.uint8), r"an array of shape \(16, 16\); this model takes \(H, W, 3\)"),
        (np.zeros((3, 16, 16), np.uint8), r"shape \(3, 16, 16\); this model takes \(H, W, 3\)"),
        (np.zeros((2, 16, 16, 3), np.uint8), r"valid: list\(images\)"),
        ([], "an empty list"),
        (["there is none.png"], "there is none.png: no such file"),
        ([np.zeros((4, 4, 3), np.uint8), 3], r"image 1 is int \(valid: a path"),
        (Image.new("I;16", (4, 4)), "more than 8 bits per value"),
        (Image.new("F", (4, 4)), "more than 8 bits per value"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(given: Any, why: str, folder: Path) -> None:
    with pytest.raises(InputError, match=why) as raised:
        as_pixels(given, COLOUR, section(folder))
    assert "\n" not in str(raised.value)


def test_files_that_are_no_images_are_named(folder: Path) -> None:
    (folder / "notes.png").write_text("no image")
    with pytest.raises(InputError, match=re.escape("notes.png: not a readable image")):
        as_pixels(folder / "notes.png", COLOUR, section(folder))
    data = RunConfig().dataset
    with pytest.raises(InputError, match=re.escape("notes.png: not a readable image")):
        as_pixels(folder / "notes.png", GREY, data)


def test_data_that_nothing_resizes_take_their_own_size_only() -> None:
    data = RunConfig().dataset
    with pytest.raises(InputError, match=r"has 20 x 18 pixels; .* trained on images of 16 x 16 that nothing"):
        as_pixels(Image.new("L", (20, 18)), GREY, data)
    with pytest.raises(InputError, match="has colours; this model takes 1 channel"):
        as_pixels(Image.new("RGB", (16, 16), (10, 200, 30)), GREY, data)
    with pytest.raises(InputError, match="has one channel; this model takes 3 channels"):
        as_pixels(Image.new("L", (16, 16)), COLOUR, data)
    assert as_pixels(Image.new("L", (16, 16)), GREY, data).shape == (1, 1, 16, 16)


def trained(tiny: dict[str, Any], out: Path, **keys: Any) -> tuple[SavedRun, torch.Tensor]:
    config = RunConfig.from_dict({**tiny, "evaluation.operating_points": False, **keys})
    run(config, out=out)
    return load(out), config.dataset.load()["val"].images[:]


def test_what_is_predicted(tiny: dict[str, Any], folder: Path) -> None:
    saved, images = trained(tiny, folder)
    found = saved.predict(images)
    assert found.probabilities is not None
    assert found.decisions is not None
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(len(images)))
    assert found.labels == [saved.info.class_name(int(index)) for index in found.prediction.argmax(1)]
    output = saved.output(images)
    assert torch.equal(found.decisions.flatten(1).sum(1), output.units_executed["big"])
    assert torch.equal(found.multiply_adds, saved.model.closed_form(output.units_executed, len(images)))
    assert found.multiply_adds.double().mean() == pytest.approx(saved_flops(folder))
    one = Image.fromarray(images[3, 0].numpy())
    again = saved.predict([one, np.asarray(one)])
    assert again.labels == [found.labels[3]] * 2
    assert again.multiply_adds.tolist() == [found.multiply_adds[3]] * 2


def saved_flops(out: Path) -> float:
    from routing.files.record import read_metrics

    return float(read_metrics(out)["metrics"]["flops"])


def test_the_exit_that_was_taken(tiny: dict[str, Any], folder: Path) -> None:
    network = {"model.name": "early_exit", "model.network.name": "conv_net"}
    saved, images = trained(tiny, folder, **network)
    exits = saved.model.exiting
    assert exits is not None
    with torch.no_grad():
        first_head = exits.confidences(exits.every_head(saved.preprocess(images)))[:, 0]
    exits.set_knob(float(first_head.median()))
    found = saved.predict(images)
    assert found.decisions is not None
    costs = {int(left): int(cost) for left, cost in zip(found.decisions, found.multiply_adds, strict=True)}
    assert len(costs) > 1
    assert [costs[left] for left in sorted(costs)] == sorted(costs.values())
    shares = saved.output(images).metrics
    first = float((found.decisions == 0).double().mean())
    assert shares[f"left_at_exit{exits.exits[0]}"] == pytest.approx(first)
