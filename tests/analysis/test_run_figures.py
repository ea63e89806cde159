"""Figures of one run: every one is drawn from plain arrays, says what it shows, and the arrays are the model's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from analysis.figures import run as run_figures
from analysis.figures.run import draw_run
from routing.commands.inspection import Inspection, PatchSamples, inspect_run
from routing.config.run import RunConfig
from routing.runner import run

ALL = ["training_curves", "attention_heatmap", "routing_decisions", "patch_scores", "rate_histogram"]


def inspection(samples: int = 3, channels: int = 1, grid: int = 4) -> Inspection:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(samples, grid**2)).astype(np.float32)
    patches = PatchSamples(
        images=rng.integers(0, 256, (samples, channels, 16, 16), dtype=np.uint8),
        targets=np.arange(samples),
        predictions=np.zeros(samples, np.int64),
        scores=scores,
        routed=scores > 0,
        grid=grid,
    )
    history = [
        {
            "epoch": e,
            "train_loss": 2 / e,
            "val_loss": 1 / e,
            "train_accuracy": 0.15 * e,
            "val_accuracy": 0.2 * e,
            "routing_ratio": 0.3,
            "threshold": 0.1,
        }
        for e in (1.0, 2.0, 3.0)
    ]
    return Inspection("model (mode) on data, seed 0", history, ("a", "b", "c"), patches, rng.random(200), 0.25, 1.0)


@pytest.mark.parametrize(("samples", "channels", "grid"), [(3, 1, 4), (5, 3, 8), (1, 3, 2)])
def test_every_figure_is_drawn(folder: Path, samples: int, channels: int, grid: int) -> None:
    paths = draw_run(inspection(samples, channels, grid), folder)
    assert [path.stem for path in paths] == ALL
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[0] > 200
        assert pixels.std() > 10  # not blank


def test_only_what_a_run_has_is_drawn(folder: Path) -> None:
    whole = inspection()
    assert draw_run(replace(whole, samples=None, routing_ratio=None, history=[]), folder) == []
    assert whole.samples is not None
    dense = replace(whole, routing_ratio=None, target_ratio=None, temperature=None)
    assert [path.stem for path in draw_run(dense, folder)] == ["training_curves", "attention_heatmap", "patch_scores"]
    fine = replace(
        whole, samples=replace(whole.samples, grid=16, scores=np.zeros((3, 256)), routed=np.ones((3, 256), bool))
    )
    assert "patch_scores" not in [path.stem for path in draw_run(fine, folder)]


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_figures_say_what_they_show() -> None:
    seen = inspection()
    assert seen.samples is not None
    heat = run_figures._heat_map(seen, seen.samples)
    assert "Attention scores: model (mode) on data, seed 0" in texts(heat)
    assert "b, called a" in texts(heat)
    scales = {
        image.norm.vmin
        for axes in heat.axes
        for image in axes.get_images()
        if image.get_cmap().name == run_figures.HEAT
    }
    assert scales == {float(seen.samples.scores.min())}  # one scale for all
    decisions = run_figures._decisions(seen, seen.samples)
    assert f"{seen.samples.routed[0].mean():.2f} routed" in texts(decisions)
    assert "big branch" in texts(decisions)
    grid = texts(run_figures._score_grid(seen, seen.samples))
    assert f"{seen.samples.scores[2, 15]:.2f}" in grid
    curves = texts(run_figures._training_curves(seen))
    for word in (
        "loss",
        "accuracy (%)",
        "training batches",
        "routing ratio",
        "budget",
        "threshold",
        "± temperature 1",
        "epoch",
    ):
        assert word in curves
    assert "share of 200 images (%)" in texts(run_figures._rate_histogram(seen))


def test_an_inspection_is_what_the_run_does(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict({**tiny, "evaluation.batch_size": 3})
    record = run(config, out=folder)
    seen = inspect_run(folder, num_samples=8)
    assert seen.title == "attention_routing (learnable_threshold) on digits, seed 0"
    assert seen.samples is not None
    assert seen.routing_ratio is not None
    assert seen.samples.scores.shape == seen.samples.routed.shape == (8, 25)
    data = config.dataset.load()["val"]
    assert np.array_equal(seen.samples.images, data.images[:8].numpy())
    assert seen.samples.targets.tolist() == data.targets[:8].tolist()
    np.testing.assert_allclose(seen.samples.routed.mean(1), seen.routing_ratio[:8])
    assert seen.routing_ratio.mean() == pytest.approx(record.metrics["routing_ratio"])
    assert seen.history[0]["val_accuracy"] == record.history[0]["val_accuracy"]
    assert seen.target_ratio == pytest.approx(0.2, abs=0.005)  # 0.3 of the compute of full_compute


def test_a_model_without_scores_has_its_curves(tiny: dict[str, Any], folder: Path) -> None:
    run(RunConfig.from_dict({**tiny, "model.name": "no_routing"}), out=folder)
    seen = inspect_run(folder)
    assert seen.samples is None
    assert [path.stem for path in draw_run(seen, folder / "figures")] == ["training_curves"]
