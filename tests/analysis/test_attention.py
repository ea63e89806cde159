"""Attention analysis: numbers with known answers, hiding that says the truth, and every promised file."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from analysis.attention import AttentionSummary, SampleView, analyze_attention
from analysis.attention.hiding import HALF, SHARES, first_in_order, hide, hiding_curves
from analysis.attention.plots import bands_of
from analysis.attention.reading import read_attention, read_inner_attention
from analysis.attention.report import _focus, _verdict
from analysis.attention.statistics import distances, entropy, statistics, successive_cosine
from analysis.attention.subject import Chosen, subject_of
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.intervals import Interval
from routing.models.aacn.model import AttentionAugmentedNet, keep_largest
from routing.models.attention import AttentionLayer
from routing.models.vit.classifier import TransformerClassifier
from routing.runner import run
from routing.saved import SavedRun, load

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
    assert found.mean is not None
    assert found.mean[0] == pytest.approx([1 / 3, 1 / 4])
    assert found.agreement == pytest.approx([1 / math.sqrt(3)] * 2)
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
    found = analyze_attention(vit_run, samples=2, num_images=24, pruning=setting, out=tmp_path)
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
    found = analyze_attention(vit_run, samples=3, num_images=2, split="train", out=tmp_path)
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
    analyze_attention(vit_run, samples=1, num_images=32, out=tmp_path)
    text = (tmp_path / "attention_analysis_report.md").read_text()
    table = pd.read_csv(tmp_path / "attention_statistics.csv")
    by_layer = table.groupby("layer")["entropy"].mean()
    assert f"Attention is most focused in {by_layer.idxmin()} (entropy {by_layer.min():.3f})" in text
    assert f"least in {by_layer.idxmax()} ({by_layer.max():.3f})" in text
    assert "(at random: " in text
    assert "With 50 % of the patches hidden" in text  # 32 of 64
    assert "token pruning" not in text


def test_attention_under_pruning_sits_on_kept_patches(vit_run: Path) -> None:
    model = load(vit_run).model
    assert isinstance(model, TransformerClassifier)
    batch = torch.randn(3, 1, 40, 40)
    before, after = (
        read_attention(model, batch),
        read_attention(model, batch, model.reference.with_text("k_anchors=2,top_m=3")),
    )
    assert [layer.kept is None for layer in after] == [True, False, False]
    assert torch.equal(before[0].maps, after[0].maps)
    shares = after[-1].patches_BHN()
    assert torch.allclose(shares.sum(2), torch.ones(3, 2), atol=1e-5)
    assert int((shares > 0).any(dim=1).sum(1).max()) <= 5


@pytest.mark.parametrize("model", ["attention_routing", "full_compute"])
def test_patch_scores_are_attention_too(model: str, tiny: dict[str, Any], folder: Path) -> None:
    run(RunConfig.from_dict({**tiny, "model.name": model, "evaluation.operating_points": False}), out=folder)
    found = analyze_attention(folder, samples=1, num_images=16)
    text = (folder / "attention" / "attention_analysis_report.md").read_text()
    assert "patch scores" in text
    assert "How alike the heads are" not in text
    assert (folder / "attention" / "attention_pattern_sample_0.png").is_file()
    assert not (folder / "attention" / "layer_comparison_sample_0.png").exists()  # of one layer
    assert found.row["entropy_first"] == found.row["entropy_last"]
    assert pd.read_csv(folder / "attention" / "attention_statistics.csv")["mean"].isna().all()  # 1 / N by definition


def test_attention_of_a_conv_net_is_the_map_that_decides(tiny: dict[str, Any], folder: Path) -> None:
    keys = {"model.name": "aacn", "model.attention.stages": 2, "evaluation.operating_points": False}
    run(RunConfig.from_dict({**tiny, **keys}), out=folder)
    saved = load(folder)
    images = saved.preprocess(saved.config.dataset.load()["val"].images[:3])
    layers, inner = read_attention(saved.model, images), read_inner_attention(saved.model, images)
    assert [layer.name for layer in layers] == ["stage2", "stage3"]
    assert [layer.name for layer in inner] == ["stage2 self-attention", "stage3 self-attention"]
    assert isinstance(saved.model, AttentionAugmentedNet)
    for layer, map_BT in zip(layers, saved.model.attend(images).maps, strict=True):
        torch.testing.assert_close(layer.patches_BHN()[:, 0], map_BT)
        kept, _ = keep_largest(map_BT, 6)
        assert torch.equal(layer.patches_BHN()[:, 0].topk(6).indices, kept)  # what it shows most is what is kept
    summary = analyze_attention(folder, samples=1, num_images=16)
    text = (folder / "attention" / "attention_analysis_report.md").read_text()
    assert "## Self-attention inside" in text
    # 12 of 25 positions, not half of them
    assert "With 48 % of the patches hidden" in text
    table = pd.read_csv(folder / "attention" / "attention_statistics.csv")
    assert table.groupby("layer", sort=False).size().to_dict() == {
        "stage2": 1,
        "stage3": 1,
        "stage2 self-attention": 4,
        "stage3 self-attention": 4,
    }
    maps = torch.cat([stage[:, None] for stage in saved.model.attend(_of(summary, saved, 16)).maps], dim=1)
    assert summary.row["entropy_last"] == pytest.approx(float(entropy(maps[:, 1].detach()).mean()), abs=1e-6)


def _of(summary: AttentionSummary, saved: SavedRun, count: int) -> Tensor:
    """Return the normalised images that an analysis of that many looked at."""
    assert summary.row["images"] == count
    found = subject_of(summary.run, Chosen(num_images=count), None, False, "cpu")
    return saved.preprocess(found.pixels)


def test_own_samples_statistic_and_figure(vit_run: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def figure(sample: SampleView) -> Figure:
        seen.append(sample.label)
        return Figure()

    own = {"top 3": lambda layer: layer.patches_BHN().topk(3).values.sum(2)}
    found = analyze_attention(
        vit_run, samples=[7, 2], num_images=8, own_statistics=own, own_figures={"mine": figure}, out=tmp_path
    )
    data = load(vit_run).config.dataset.load()["val"]
    assert seen == [str(int(data.targets[7])), str(int(data.targets[2]))]
    assert {"mine_sample_0.png", "mine_sample_1.png"} <= {path.name for path in found.files}
    assert pd.read_csv(tmp_path / "attention_statistics.csv")["top 3"].between(3 / 64, 1).all()
    with pytest.raises(InputError, match=r"statistic 'flat' is \(8,\), not \(8, 2\): one number per image and head"):
        analyze_attention(
            vit_run, samples=1, num_images=8, own_statistics={"flat": lambda layer: layer.maps.mean((1, 2, 3))}
        )


def test_one_class_and_files(vit_run: Path, tmp_path: Path) -> None:
    found = analyze_attention(vit_run, samples=1, num_images=500, classes=["3"], out=tmp_path)
    assert found.row["images"] == int((load(vit_run).config.dataset.load()["val"].targets == 3).sum())
    file = tmp_path / "a photograph.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70), dtype=np.uint8)).save(file)
    found = analyze_attention(vit_run, images=[file], colormap="magma", smooth=True, out=tmp_path / "files")
    text = (tmp_path / "files" / "attention_analysis_report.md").read_text()
    assert "1 images from files, whose labels are not known" in text
    assert found.row["accuracy"] is None
    assert (tmp_path / "files" / "attention_pattern_sample_0.png").is_file()


def test_tiles_are_in_even_bands() -> None:
    assert [bands_of(tiles) for tiles in (1, 2, 7, 8, 13, 14, 25)] == [
        (1, 1), (1, 2), (1, 7), (2, 4), (2, 7), (2, 7), (4, 7),
    ]  # fmt: skip


def test_layers_are_compared_only_where_intervals_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    maps = [torch.tensor(rng.dirichlet(np.ones(5), size=(20, 2, 5))) for _ in range(2)]
    alike = statistics([[layer(values, (2, 2)) for values in maps]])
    assert "No layer is more focused than another" in "".join(_focus(alike))
    focused = statistics([[layer(maps[0], (2, 2)), replace(layer(maps[1] ** 8, (2, 2)), name="block 1")]])
    assert "Attention is most focused in" in "".join(_focus(focused))


def test_random_weights_are_only_looked_at_when_asked(vit_run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text((vit_run / "config.yaml").read_text())
    with pytest.raises(InputError, match=r"no model.safetensors: the run has not finished"):
        analyze_attention(bare, samples=1, num_images=8)
    analyze_attention(bare, samples=1, num_images=8, random_weights=True)
    text = (bare / "attention" / "attention_analysis_report.md").read_text()
    assert "RANDOM WEIGHTS" in text.splitlines()[0]


def test_bad_input(vit_run: Path, tiny: dict[str, Any], folder: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder"):
        analyze_attention(folder / "none")
    with pytest.raises(InputError, match=r"has no split 'vall' \(valid: test, train, val\)"):
        analyze_attention(vit_run, split="vall")
    with pytest.raises(InputError, match=r"merged tokens have no place in the image"):
        analyze_attention(vit_run, num_images=8, samples=1, pruning="method=merge,k_anchors=1,top_m=2", out=folder)
    with pytest.raises(InputError, match=r"1 \+ 10 \+ 60 = 71 tokens, but the model has 65"):
        analyze_attention(vit_run, pruning="k_anchors=10,top_m=60")
    with pytest.raises(InputError, match=r"--class '11': no such class"):
        analyze_attention(vit_run, classes=["11"])
    with pytest.raises(InputError, match=r"sample 96: the val split has 96 \(valid: 0 to 95\)"):
        analyze_attention(vit_run, samples=[96])
    with pytest.raises(InputError, match=r"--colormap 'viridi': no colour map of matplotlib; did you mean 'viridis'"):
        analyze_attention(vit_run, colormap="viridi")
    with pytest.raises(InputError, match=r"none.png"):
        analyze_attention(vit_run, images=[folder / "none.png"])
    with pytest.raises(InputError, match=r"device 'gpu': no such kind of device"):
        analyze_attention(vit_run, device="gpu")
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


def test_the_example_of_the_page_runs(vit_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/attention.md from Python, as it stands."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(vit_run, tmp_path / "runs" / "first")
    page = (Path(__file__).parents[2] / "docs" / "attention.md").read_text()
    names: dict[str, Any] = {}
    for block in page.split("```python\n")[1:]:
        exec(block.split("```")[0], names)
    assert {"last_layer_sample_0.png", "last_layer_sample_1.png"} <= {path.name for path in names["summary"].files}
    assert names["layer"].entropy.shape == (64, 2)


def test_more_samples_than_anybody_can_look_at_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"samples: 100000 images to draw, .*\(valid: 1 to 256\)"):
        analyze_attention(tmp_path / "no run", samples=100_000)
