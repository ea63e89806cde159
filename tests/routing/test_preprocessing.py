"""How an image file becomes the pixels that a pretrained model was trained on: those of its library's transforms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from routing.config.preprocessing import preprocessing_line
from routing.config.run import RunConfig
from routing.data import DataInfo, normalise
from routing.data.image_folder import view_of
from routing.data.view import View
from routing.errors import InputError
from routing.models import build_model
from routing.models.preprocessing import open_clip_view
from routing.saved import SavedRun

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


def auto(model: dict[str, Any], **dataset: Any) -> RunConfig:
    keys = {"name": "image_folder", "root": "photographs", "resize": "auto", **dataset}
    return RunConfig.from_dict({"dataset": keys, "model": model})


def check_tensors(config: RunConfig, theirs: Callable[[Image.Image], Tensor], photographs: list[Path]) -> None:
    """Compare what a model is given with a library's own tensors: one grey level at most, in units of the deviation."""
    section: Any = config.dataset
    view = view_of(section).at_depth(8)
    level = 1 / (255 * torch.tensor(section.std).view(3, 1, 1))
    info = type("Info", (), {"mean": section.mean, "std": section.std})
    for path in photographs:
        with Image.open(path) as image:
            expected = theirs(image.convert("RGB"))
        ours = normalise(torch.from_numpy(view.read(str(path)))[None], info)[0]  # type: ignore[arg-type]
        assert ours.shape == expected.shape
        assert bool(((ours - expected).abs() <= 1.001 * level).all())


@pytest.mark.parametrize(
    ("architecture", "resize", "crop_pct"),
    [
        ("vit_tiny_patch16_224", "shortest", 0.9),
        ("convnext_tiny.fb_in22k_ft_in1k_384", "stretch", 1.0),
        ("resnet10t", "shortest", 0.875),
    ],
)
def test_auto_gives_the_tensors_of_timm(
    architecture: str, resize: str, crop_pct: float, photographs: list[Path]
) -> None:
    data = pytest.importorskip("timm.data")
    from timm.models import get_pretrained_cfg

    settings = data.resolve_data_config(pretrained_cfg=get_pretrained_cfg(architecture).to_dict())
    theirs = data.create_transform(**settings)
    name = "timm_vit" if architecture.startswith("vit") else "timm_net"
    config = auto({"name": name, "architecture": architecture})
    section: Any = config.dataset
    assert (section.resize, section.crop_pct) == (resize, crop_pct)
    check_tensors(config, theirs, photographs)
    assert RunConfig.from_dict(config.model_dump(mode="json")) == config


def test_auto_gives_the_tensors_of_torchvision(photographs: list[Path]) -> None:
    from torchvision.models import ResNet50_Weights

    config = auto({"name": "torchvision_net", "architecture": "resnet50", "weights": "IMAGENET1K_V2"})
    check_tensors(config, ResNet50_Weights.IMAGENET1K_V2.transforms(), photographs)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [64, (48, 80)])
def test_pixels_are_those_of_open_clip(mode: str, size: Any, photographs: list[Path]) -> None:
    transform = pytest.importorskip("open_clip.transform")
    settings = {"size": size, "resize_mode": mode, "interpolation": "bicubic", "fill_color": 0}
    theirs = transform.image_transform_v2(transform.PreprocessCfg(**settings, mean=(0.0,) * 3, std=(1.0,) * 3), False)
    view = View(**open_clip_view(settings), bit_depth=8)
    for path in photographs:
        with Image.open(path) as image:
            expected = 255 * theirs(image.convert("RGB")).numpy()
        assert np.abs(view.read(str(path)) - expected).max() <= 1.001


def test_keys_that_are_given_stay_and_the_log_says_so() -> None:
    pytest.importorskip("timm")
    model = {"name": "timm_vit", "architecture": "vit_small_patch14_dinov2", "weights": "DEFAULT"}
    config = auto(model)
    assert (config.dataset.input_size, config.dataset.patch_grid_size) == (518, 2)
    assert preprocessing_line(config.model, config.dataset) == (
        "images: prepared as timm's vit_small_patch14_dinov2 says"
    )
    config = auto(model, input_size=224, interpolation="bilinear")
    assert (config.dataset.input_size, getattr(config.dataset, "interpolation", "")) == (224, "bilinear")
    line = preprocessing_line(config.model, config.dataset)
    assert line == (
        "images: not as timm's vit_small_patch14_dinov2 says: dataset.input_size 224 (its own: 518), "
        "dataset.interpolation bilinear (its own: bicubic)"
    )
    untrained = auto({**model, "weights": None}, input_size=224)
    assert preprocessing_line(untrained.model, untrained.dataset) == ""


def test_a_saved_run_predicts_from_what_the_library_would_give_the_network(photographs: list[Path]) -> None:
    data, timm = pytest.importorskip("timm.data"), pytest.importorskip("timm")
    config = auto({"name": "timm_net", "architecture": "resnet10t"}, input_size=64, bit_depth=8)
    section: Any = config.dataset
    info = DataInfo("classification", 3, 64, 5, section.mean, section.std, class_names=tuple("abcde"))
    model = build_model(config.model, info).eval()
    theirs = data.create_transform(
        **{**data.resolve_data_config(model=timm.create_model("resnet10t")), "input_size": 64}
    )
    images = [Image.open(path).convert("RGB") for path in photographs[:20]]
    with torch.no_grad():
        expected = model(torch.stack([theirs(image) for image in images])).prediction
    saved = SavedRun(RunConfig.from_dict(config.model_dump(mode="json")), info, model)
    for given in ([str(path) for path in photographs[:20]], images):
        torch.testing.assert_close(saved.predict(given).prediction, expected, atol=1e-4, rtol=1e-4)


def test_auto_of_own_models_cuts_the_centre_out() -> None:
    for name in ("conv_net", "vit", "attention_routing"):
        section: Any = auto({"name": name}).dataset
        assert (section.resize, section.crop_pct, section.input_size) == ("shortest", 1, 32)


def test_auto_of_the_weights_of_a_run_is_as_the_run_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = auto({"name": "conv_net"}, resize="longest_pad", mean=[0.5, 0.5, 0.5], input_size=48)
    (tmp_path / "config.yaml").write_text(first.to_yaml())
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        section: Any = auto({"name": "vit", "weights": str(weights)}).dataset
        assert (section.resize, section.mean, section.input_size) == ("longest_pad", (0.5, 0.5, 0.5), 48)
    monkeypatch.chdir(tmp_path)  # a config.yaml that has nothing to do with the weights
    for name in ("DEFAULT", str(tmp_path / "weights.pth")):
        section = auto({"name": "torchvision_net", "weights": name}).dataset
        assert (section.resize, section.input_size) == ("shortest", 224)


def test_auto_of_a_model_that_timm_does_not_have() -> None:
    pytest.importorskip("timm")
    with pytest.raises(InputError, match=r"timm knows no preprocessing of model.architecture 'vit_tiny_patch16_225'"):
        auto({"name": "timm_vit", "architecture": "vit_tiny_patch16_225"})
    with pytest.raises(InputError, match=r"dataset.resize: must be 'auto', 'stretch', 'shortest' or 'longest_pad'"):
        auto({"name": "vit"}, resize="fit")


def folder_of_transformers(folder: Path, **processor: Any) -> str:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "vit"}')
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


def test_auto_reads_the_folder_that_weights_come_from(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    asked = folder_of_transformers(tmp_path / "asked", size=224)
    own = folder_of_transformers(tmp_path / "own", size=96, image_mean=0.25, image_std=[0.2, 0.3, 0.4])
    model = {"name": "transformers_vit", "architecture": asked}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"model: {{weights: {own}}}\ndataset: {{name: digits}}\n")
    for weights, size, mean in ((None, 224, 0.5), ("DEFAULT", 224, 0.5), (own, 96, 0.25), (tmp_path / "run", 96, 0.25)):
        section: Any = auto({**model, "weights": None if weights is None else str(weights)}).dataset
        assert (section.input_size, section.mean) == (size, (mean,) * 3)


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        ({"do_normalize": False, "image_mean": [0.5] * 3}, 0.0, 1.0),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51] * 3}, 0.5, 0.2),
        ({"rescale_factor": 1 / 127.5, "image_mean": 1, "image_std": 1}, 0.5, 0.5),
    ],
)
def test_steps_that_a_processor_leaves_out(processor: dict[str, Any], mean: float, std: float, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    name = folder_of_transformers(tmp_path / "model", **processor)
    section: Any = auto({"name": "transformers_vit", "architecture": name}).dataset
    assert section.mean == pytest.approx((mean,) * 3)
    assert section.std == pytest.approx((std,) * 3)


@pytest.mark.parametrize(
    "processor",
    [
        {"size": None},
        {"size": {"longest_edge": 224}},
        {"size": {"height": 224, "width": 112}},
        {"do_center_crop": True, "crop_size": {"shortest_edge": 224}},
        {"do_center_crop": True, "crop_size": 256},
        {"image_mean": [0.5]},
        {"image_std": 0},
        {"do_resize": False},
    ],
)
def test_a_processor_that_cannot_be_followed_names_its_file(processor: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    name = folder_of_transformers(tmp_path / "model", **processor)
    with pytest.raises(InputError, match=rf"^the preprocessor_config.json of {name} cannot be followed: .*valid: size"):
        auto({"name": "transformers_vit", "architecture": name})


def test_torchvision_weights_of_a_run_from_scratch_say_nothing_on_images(tmp_path: Path) -> None:
    for name, weights in (("scratch", "null"), ("tuned", "DEFAULT")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"model: {{weights: {weights}}}\ndataset: {{name: digits}}\n")
    model = {"name": "torchvision_net", "architecture": "resnet18"}
    scratch = auto({**model, "weights": str(tmp_path / "scratch")})
    assert preprocessing_line(scratch.model, scratch.dataset) == ""
    assert getattr(scratch.dataset, "input_size", 0) == 32
    tuned = auto({**model, "weights": str(tmp_path / "tuned")})
    assert preprocessing_line(tuned.model, tuned.dataset) == "images: prepared as torchvision's resnet18 (DEFAULT) says"
