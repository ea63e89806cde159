"""Zero-shot classification of photographs of every shape: what open_clip and clip_benchmark say of the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from routing.cli import main
from routing.data.image_folder import load
from routing.data.sections import ImageFolderSection
from routing.models.vit.clip import load_clip

open_clip = pytest.importorskip("open_clip")

CLASSES = ("bee", "cup", "dog", "fig", "hat", "owl", "sea")
PREPROCESSING = {"interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """56 images of odd shapes, most of them far from square; a class has a colour and more."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(1)
    for index in range(112):
        split, name = ("train", "val")[index % 2], CLASSES[index // 2 % len(CLASSES)]
        width, height = (int(side) for side in rng.integers(20, 300, size=2))
        coarse = Image.fromarray(rng.integers(0, 256, (5, 11, 3), dtype=np.uint8))
        path = root / split / name / f"{index}.{'png' if index % 4 < 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return root


def a_model(folder: Path, mode: str, size: Any = 32) -> str:
    """Return the name of a model of random weights in a folder, with the preprocessing it was trained with."""
    vision = {"image_size": size, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    settings = {**PREPROCESSING, "size": size, "resize_mode": mode}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": settings}))
    (folder / "tiny.json").write_text(json.dumps(config))
    weights = load_clip(str(folder / "tiny.json"), "random", torch.device("cpu"), seed=3).model.state_dict()
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    return f"local-dir:{folder}"


def theirs(name: str) -> tuple[Any, Any]:
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return model.eval(), preprocess


@pytest.mark.parametrize(
    ("mode", "size"), [("shortest", 32), ("squash", 32), ("longest", 32), ("shortest", [24, 40])], ids=str
)
def test_tensors_and_predictions_are_those_of_open_clip(mode: str, size: Any, root: Path, tmp_path: Path) -> None:
    name = a_model(tmp_path, mode, size)
    model, preprocess = theirs(name)
    clip = load_clip(name, "default", torch.device("cpu"))
    files = sorted((root / "val").glob("*/*"))
    pixels = torch.stack([torch.from_numpy(clip.view.read(str(file))) for file in files])
    expected = torch.stack([preprocess(Image.open(file)) for file in files])
    assert float((clip.prepare(pixels) - expected).abs().max()) <= 1.001 / (255 * 0.25)
    classes = clip.class_embeddings(CLASSES, ["a photo of a {}."])
    with torch.no_grad():
        ours, found = clip.logits(clip.prepare(pixels), classes), model.encode_image(expected, normalize=True) @ classes
    assert len(set(found.argmax(1).tolist())) > 1
    assert torch.equal(ours.argmax(1), found.argmax(1))


def accuracy(output: Tensor, target: Tensor, topk: tuple[int, ...]) -> list[float]:
    """clip_benchmark's function of this name, whose last line fails with NumPy from 2.4 on."""
    correct = output.topk(max(topk), 1, True, True)[1].t().eq(target.view(1, -1))
    return [float(correct[:k].float().sum()) / len(target) for k in topk]


def test_the_record_is_clip_benchmarks(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    monkeypatch.setattr(benchmark, "accuracy", accuracy)
    from torchvision.datasets import ImageFolder

    name = a_model(tmp_path, "shortest")
    model, preprocess = theirs(name)
    templates = ["a photo of a {c}.", "a drawing of a {c}."]
    loader = torch.utils.data.DataLoader(ImageFolder(root / "val", preprocess), batch_size=16)
    expected = benchmark.evaluate(
        model, loader, open_clip.get_tokenizer(name), list(CLASSES), templates, "cpu", amp=False
    )
    (tmp_path / "templates.json").write_text(json.dumps(templates))
    words = ["--model", name, "--templates", str(tmp_path / "templates.json"), "--dataset.name", "image_folder"]
    words += ["--dataset.root", str(root)]

    def record(*more: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["zeroshot", *words, *more]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["metrics"]
        return found

    found = record()
    assert found["images"] == 56
    assert 0 < expected["acc1"] < expected["acc5"] < 1
    for key in ("acc1", "acc5", "mean_per_class_recall"):
        assert found[key] == pytest.approx(expected[key], abs=1e-9)
    stretched = record("--dataset.resize", "stretch")
    assert any(stretched[key] != found[key] for key in ("acc1", "acc5"))


def test_keys_against_the_models_own_are_taken_and_said(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = a_model(tmp_path, "shortest")
    words = ["zeroshot", "--model", name, "--dataset.name", "image_folder", "--dataset.root", str(root)]
    assert main([*words, "--dataset.resize", "longest_pad", "--dataset.input_size", "48"]) == 0
    line = "images: not as open_clip prepares them for the model: height 48 (its own: 32), width 48 (its own: 32), "
    assert line + "resize longest_pad (its own: shortest)" in capsys.readouterr().err
    assert main([*words, "--dataset.resize", "auto", "--dataset.input_size", "32"]) == 0
    assert "images: not as" not in capsys.readouterr().err
    assert main([*words, "--dataset.mean", "[0, 0, 0]"]) == 2
    assert "dataset.mean: images are normalised as the model's own" in capsys.readouterr().err


def test_a_view_that_is_given_is_that_of_every_split(root: Path, tmp_path: Path) -> None:
    clip = load_clip(a_model(tmp_path, "shortest", [24, 40]), "default", torch.device("cpu"))
    data = load(ImageFolderSection(root=root), clip.view)
    assert {tuple(split.images[:].shape[1:]) for split in data.splits.values()} == {(3, 24, 40)}
