"""Images with a list of boxes: classes, splits, boxes in pixels of the resized image, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from routing.config.run import RunConfig
from routing.data.boxed_images import read_boxes
from routing.errors import InputError
from routing.runner import run

HEAD = "image,width,height,label,xmin,ymin,xmax,ymax\n"


def write_boxes(root: Path, count: int = 20) -> None:
    """Images of 40 x 20 pixels: a red or a blue square of 10 pixels at a place of its own, and one image with both."""
    (root / "images").mkdir(parents=True)
    lines = [HEAD]
    for index in range(count):
        image = Image.new("RGB", (40, 20), "grey")
        left, kind = (index * 7) % 30, ("red", "blue")[index % 2]
        image.paste(kind, (left, 5, left + 10, 15))
        image.save(root / "images" / f"{index}.png")
        lines.append(f"{index}.png,40,20,{kind},{left},5,{left + 10},15\n")
    lines.append("0.png,40,20,blue,0,0,2,2\n")
    lines.append("1.png,40,20,blue,0,0,2,2\n")
    (root / "boxes.csv").write_text("".join(lines))


def config(root: Path, **keys: object) -> RunConfig:
    return RunConfig.from_dict(
        {
            "dataset.name": "boxed_images",
            "dataset.root": str(root),
            "dataset.input_size": 16,
            "dataset.patch_grid_size": 4,
            "dataset.patch_margin": 0,
            **keys,
        }
    )


def test_the_only_kind_is_the_class_and_the_largest_box_is_the_box(folder: Path) -> None:
    write_boxes(folder)
    found = read_boxes(folder / "boxes.csv")
    assert (found.classes, found.left_out) == (("blue", "red"), 1)  # 0.png has both kinds
    assert "0.png" not in found.names
    place = found.names.index("1.png")
    assert found.classes[found.labels[place]] == "blue"
    # 1.png: 10 x 10 pixels at left 7, top 5 of 40 x 20, not the smaller box in the corner
    assert found.boxes[place].tolist() == [5 / 20, 7 / 40, 10 / 20, 10 / 40]


@pytest.mark.parametrize("resize", ["stretch", "longest_pad"])
def test_boxes_follow_their_images_into_the_splits(folder: Path, resize: str) -> None:
    write_boxes(folder)
    keys = {"dataset.resize": resize, "dataset.input_size": 32}
    data = config(folder, **keys).dataset.load()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 11, "val": 4, "test": 4}
    for split in data.splits.values():
        for pixels, target, box in zip(split.images[:], split.targets, split.extra["box"], strict=True):
            top, left, height, width = box.round().int().tolist()
            red, _, blue = pixels[:, top + 1 : top + height - 1, left + 1 : left + width - 1].float().mean(dim=(1, 2))
            assert (blue > red) == (data.info.class_names[target] == "blue")
    assert box.tolist()[2:] == ([16, 8] if resize == "stretch" else [8, 8])  # a square stays one
    other = config(folder, **keys, **{"dataset.seed": 1}).dataset.load()
    assert not torch.equal(other["val"].extra["box"], data["val"].extra["box"])


def test_the_oracle_of_routed_conv_sees_the_box(folder: Path) -> None:
    write_boxes(folder)
    keys = {
        "model.name": "routed_conv",
        "model.experts.channels": [8],
        "model.router.mode": "oracle",
        "model.router.budget.unit": "ratio",
        "model.encoder.pool": 1,
        "training.augment.crop": 0,
        "training.augment.flip": False,
        "training.num_epochs": 1,
        "training.batch_size": 4,
    }
    record = run(config(folder, **keys))
    assert record.certificate is not None
    assert record.certificate["recall"] > 2 * record.certificate["rate"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n", r"boxes.csv: no column 'width'"),
        (HEAD + "a.png,40,20,red,1,2,x,4\n", r"line 2: a width, height or corner is not a number"),
        (HEAD + "a.png,40,20,red,1,2,50,4\n", r"line 2: the box is not inside its image of 40 x 20 pixels"),
        (HEAD + "a.png,40,20,red,1,2,3,4\n", r"needs images of at least two kinds, found red"),
    ],
)
def test_a_bad_list_is_said_in_one_line(folder: Path, text: str, message: str) -> None:
    (folder / "boxes.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        config(folder).dataset.info()


def test_what_would_cut_boxes_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"dataset.resize: must be 'stretch' or 'longest_pad', not 'shortest'"):
        config(folder, **{"dataset.resize": "shortest"})


def test_an_image_that_is_not_there_is_named(folder: Path) -> None:
    write_boxes(folder)
    (folder / "images" / "3.png").unlink()
    with pytest.raises(InputError, match=r"3.png: named in boxes.csv, but No such file"):
        config(folder).dataset.load()
