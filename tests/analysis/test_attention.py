"""Attention analysis: numbers with known answers, hiding that says the truth, and every promised file."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from analysis.attention import analyze_attention
from analysis.attention.hiding import HALF, SHARES, first_in_order, hide, hiding_curves
from analysis.attention.report import _verdict
from analysis.attention.statistics import distances, entropy, statistics, successive_cosine
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.intervals import Interval
from routing.models.attention import AttentionLayer
from routing.models.vit.classifier import TransformerClassifier
from routing.runner import run
from routing.saved import load

VIT = {"model.name": "vit", "model.width": 16, "model.heads": 2, "model.depth": 3, "model.mlp": 32}


def layer(maps: Tensor, grid: tuple[int, int], **changes: Any) -> AttentionLayer:
    return AttentionLayer("block 0", maps, grid, **{"has_cls": True, **changes})


def test_entropy_is_a_share_of_its_maximum() -> None:
    assert entropy(torch.full((4,), 0.25)).item() == pytest.approx(1)
    assert entropy(torch.tensor([0.0, 1.0, 0.0])).item() == 0
    # two of four equally: log 2 / log 4
    assert entropy(torch.tensor([0.5, 0.5, 0.0, 0.0])).item() == pytest.approx(0.5)
    assert entropy(torch.ones(3, 1)).tolist() == [0, 0, 0]


def test_attention_to_patches_sums_to_one() -> None:
    maps = torch.tensor([[[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.0, 0.5, 0.5]]]])
    assert torch.allclose(layer(maps, (1, 2)).patches_BHN(), torch.tensor([[[0.6, 0.4]]]))
    # without CLS the reader is the mean over queries: (0.6 + 0.2) / 2
    pair = torch.tensor([[[[0.6, 0.4], [0.2, 0.8]]]])
    assert torch.allclose(layer(pair, (1, 2), has_cls=False).patches_BHN(), torch.tensor([[[0.4, 0.6]]]))


def test_dropped_patches_get_nothing() -> None:
    maps = torch.tensor([[[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.0, 0.5, 0.5]]]])
    found = layer(maps, (2, 2), kept=torch.tensor([[0, 2, 4]])).patches_BHN()
    assert torch.allclose(found, torch.tensor([[[0.0, 0.6, 0.0, 0.4]]]))


def test_statistics_by_hand() -> None:
    # patches in a row of 3; every patch looks at itself: distance 0. Head 1 looks uniformly
    own = torch.eye(4)
    own[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    maps = torch.stack([own, torch.full((4, 4), 0.25)])[None]
    (found,) = statistics([[layer(maps, (1, 3))], [layer(maps, (1, 3))]])
    assert found.entropy.tolist() == [[0, 1], [0, 1]]
    assert found.peak[0] == pytest.approx([1, 1 / 3])
    assert found.mean[0] == pytest.approx([1 / 3, 1 / 4])
    # mean distance among three in a row: (0+1+2 + 1+0+1 + 2+1+0) / 9
    assert found.distance is not None
    assert found.distance[0] == pytest.approx([0, 8 / 9])
    assert found.uniform_distance == pytest.approx(8 / 9)
    # heads: (1, 0, 0) against (1, 1, 1) / 3
    assert found.similarity == pytest.approx(np.array([[1, 1 / math.sqrt(3)], [1 / math.sqrt(3), 1]]))


def test_distance_knows_where_kept_patches_are() -> None:
    maps = torch.full((1, 1, 3, 3), 1 / 3)
    (found,) = statistics([[layer(maps, (1, 4), kept=torch.tensor([[0, 1, 4]]))]])
    assert found.distance is not None
    assert found.distance[0, 0] == pytest.approx(1.5)  # patches 0 and 3: half at distance 0, half at 3
    assert distances((2, 2))[0].tolist() == pytest.approx([0, 1, 1, math.sqrt(2)])


def test_cosine_of_successive_maps() -> None:
    a, b = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    found = successive_cosine([a, a, b, np.ones(3)])
    assert found[:2] == [1, 0]
    assert math.isnan(found[2])


def test_hiding_sets_whole_patches_to_the_mean() -> None:
    images = torch.ones(1, 1, 4, 4)
    hidden = hide(images, torch.tensor([[True, False, False, False]]), (2, 2))
    assert hidden[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert first_in_order(torch.tensor([[2, 0, 1]]), 2).tolist() == [[True, False, True]]


def test_hiding_curves_of_a_model_that_needs_one_patch() -> None:
    """The prediction is right as long as patch 3 is visible; attention that names it is found out, and its opposite."""
    images = torch.ones(40, 1, 20, 20)
    attention = torch.zeros(40, 100)
    attention[:, 3] = 1

    def correct(batch: Tensor) -> Tensor:
        return (batch[:, 0, 0, 6] > 0).double()

    curves = hiding_curves(images, attention, (10, 10), correct)
    assert curves.curves()["deletion_most"].tolist() == [1.0] + [0.0] * 10
    assert curves.curves()["deletion_least"].tolist() == [1.0] * 10 + [0.0]
    assert curves.curves()["insertion_most"].tolist() == [0.0] + [1.0] * 10
    random = curves.curves()["deletion_random"]
    assert (random[0], random[-1]) == (1.0, 0.0)
    assert random[HALF] == pytest.approx(0.5, abs=0.15)
    assert curves.area("deletion_most") == pytest.approx(0.05)
    assert curves.area("deletion_least") == pytest.approx(0.95)
    wrong = hiding_curves(images, -attention, (10, 10), correct)
    assert wrong.area("deletion_most") > wrong.area("deletion_random") > wrong.area("deletion_least")
    assert len(SHARES) == 11


@pytest.fixture(scope="module")
def vit_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a vit"
    keys = {"dataset.num_train": 256, "dataset.num_val": 96, "dataset.num_test": 64, "training.num_epochs": 1}
    run(RunConfig.from_dict({**keys, **VIT, "evaluation.operating_points": False}), out=folder)
    return folder


def test_every_file_of_a_transformer(vit_run: Path, tmp_path: Path) -> None:
    setting = "k_anchors=3,top_m=9,alpha=0.5,start_layer=1"
    found = analyze_attention(vit_run, samples=2, images=24, pruning=setting, out=tmp_path)
    names = {path.name for path in found.files}
    for number in range(2):
        for kind in ("attention_pattern", "attention_heads", "layer_comparison", "attention_pruning"):
            assert f"{kind}_sample_{number}.png" in names
    assert {
        "attention_statistics.png",
        "attention_statistics.csv",
        "attention_head_similarity.csv",
        "attention_deletion_insertion.png",
        "attention_analysis_report.md",
    } <= names
    assert all(path.stat().st_size > 0 for path in found.files)
    text = (tmp_path / "attention_analysis_report.md").read_text()
    assert "24 images of the val split of digits" in text
    assert "13 of 65 tokens are kept" in text
    assert "nan" not in text
    table = pd.read_csv(tmp_path / "attention_statistics.csv")
    assert len(table) == 3 * 2
    assert table["entropy"].between(0, 1).all()
    assert found.row["images"] == 24


def test_fewer_images_than_samples(vit_run: Path, tmp_path: Path) -> None:
    found = analyze_attention(vit_run, samples=3, images=2, split="train", out=tmp_path)
    assert len([path for path in found.files if path.name.startswith("attention_pattern")]) == 3
    config = load(vit_run).config.replace(**{"dataset.num_val": 2})
    (tmp_path / "few").mkdir()
    for path in vit_run.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path / "few")
    (tmp_path / "few" / "config.yaml").write_text(config.to_yaml())
    found = analyze_attention(tmp_path / "few", samples=3)
    assert found.row["images"] == 2
    assert len([path for path in found.files if path.name.startswith("attention_pattern")]) == 2


def test_report_numbers_are_the_measured_ones(vit_run: Path, tmp_path: Path) -> None:
    analyze_attention(vit_run, samples=1, images=32, out=tmp_path)
    text = (tmp_path / "attention_analysis_report.md").read_text()
    table = pd.read_csv(tmp_path / "attention_statistics.csv")
    by_layer = table.groupby("layer")["entropy"].mean()
    assert f"Attention is most focused in {by_layer.idxmin()} (entropy {by_layer.min():.3f})" in text
    assert f"least in {by_layer.idxmax()} ({by_layer.max():.3f})" in text
    assert "token pruning" not in text


def test_attention_under_pruning_sits_on_kept_patches(vit_run: Path) -> None:
    model = load(vit_run).model
    assert isinstance(model, TransformerClassifier)
    batch = torch.randn(3, 1, 40, 40)
    before, after = (
        model.attention_layers(batch),
        model.attention_layers(batch, model.reference.with_text("k_anchors=2,top_m=3")),
    )
    assert [layer.kept is None for layer in after] == [True, False, False]
    assert torch.equal(before[0].maps, after[0].maps)
    shares = after[-1].patches_BHN()
    assert torch.allclose(shares.sum(2), torch.ones(3, 2), atol=1e-5)
    assert int((shares > 0).any(dim=1).sum(1).max()) <= 5


@pytest.mark.parametrize("model", ["attention_routing", "full_compute"])
def test_patch_scores_are_attention_too(model: str, tiny: dict[str, Any], folder: Path) -> None:
    run(RunConfig.from_dict({**tiny, "model.name": model, "evaluation.operating_points": False}), out=folder)
    found = analyze_attention(folder, samples=1, images=16)
    text = (folder / "attention" / "attention_analysis_report.md").read_text()
    assert "patch scores" in text
    assert "How alike the heads are" not in text
    assert (folder / "attention" / "attention_pattern_sample_0.png").is_file()
    assert found.row["entropy_first"] == found.row["entropy_last"]


def test_attention_of_a_conv_net_is_read_stage_by_stage(tiny: dict[str, Any], folder: Path) -> None:
    keys = {"model.name": "aacn", "model.attention.stages": 2, "evaluation.operating_points": False}
    run(RunConfig.from_dict({**tiny, **keys}), out=folder)
    saved = load(folder)
    images = saved.preprocess(saved.config.dataset.load()["val"].images[:3])
    layers = saved.model.attention_layers(images)
    assert [layer.name for layer in layers] == list(saved.model.attention_maps(images))
    assert len(layers) == 2
    for layer in layers:
        assert layer.grid[0] ** 2 == layer.maps.shape[3]
        assert torch.allclose(layer.patches_BHN().sum(2), torch.ones(layer.maps.shape[:2]), atol=1e-5)
    analyze_attention(folder, samples=1, images=16)
    assert layers[0].name in (folder / "attention" / "attention_analysis_report.md").read_text()
    assert (folder / "attention" / "attention_pattern_sample_0.png").is_file()


def test_random_weights_are_only_looked_at_when_asked(vit_run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text((vit_run / "config.yaml").read_text())
    with pytest.raises(InputError, match=r"no model.safetensors: the run has not finished"):
        analyze_attention(bare, samples=1, images=8)
    analyze_attention(bare, samples=1, images=8, random_weights=True)
    text = (bare / "attention" / "attention_analysis_report.md").read_text()
    assert "RANDOM WEIGHTS" in text.splitlines()[0]


def test_bad_input(vit_run: Path, tiny: dict[str, Any], folder: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder"):
        analyze_attention(folder / "none")
    with pytest.raises(InputError, match=r"has no split 'vall' \(valid: test, train, val\)"):
        analyze_attention(vit_run, split="vall")
    with pytest.raises(InputError, match=r"merged tokens have no place in the image"):
        analyze_attention(vit_run, images=8, samples=1, pruning="method=merge,k_anchors=1,top_m=2", out=folder)
    with pytest.raises(InputError, match=r"1 \+ 10 \+ 60 = 71 tokens, but the model has 65"):
        analyze_attention(vit_run, pruning="k_anchors=10,top_m=60")
    run(RunConfig.from_dict({**tiny, "model.name": "no_routing"}), out=folder / "dense")
    with pytest.raises(InputError, match=r"NoRouting has no attention to look at"):
        analyze_attention(folder / "dense")
    run(RunConfig.from_dict({**tiny, "model.router.mode": "oracle"}), out=folder / "oracle")
    with pytest.raises(InputError, match=r"oracle: this model needs the box of every image, not only pixels"):
        analyze_attention(folder / "oracle")
    with pytest.raises(InputError, match=r"NoRouting has no tokens to prune"):
        analyze_attention(folder / "dense", pruning="k_anchors=1")


def test_verdicts_follow_the_numbers() -> None:
    assert "does mark" in _verdict(Interval(0.2, 0.1, 0.3))
    assert "less than others" in _verdict(Interval(-0.2, -0.3, -0.1))
    assert "cannot be told from chance" in _verdict(Interval(0.0, -0.1, 0.1))
