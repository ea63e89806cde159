"""``training.pictures_every``: what is kept of four images while a model trains, and that it changes no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.figures.run import _score_grid, digits_to_tell_apart, draw_run
from analysis.figures.strip import MOST, shown_epochs
from routing.commands.inspection import Inspection, PatchSamples, inspect_run
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.runner import run
from routing.training.pictures import read_pictures
from tests.families import FAMILIES, VIT


@pytest.mark.parametrize("name", ["learnable_threshold", "gumbel", "random", "vit", "aacn", "oracle"])
def test_pictures_of_every_second_epoch_and_the_same_training(name: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    keys = {**tiny, **FAMILIES[name], "dataset.num_train": 64, "training.num_epochs": 4, "model.dropout": 0.1}
    keys = {key: value for key, value in keys.items() if key != "model.dropout" or name == "vit"}
    keys["evaluation.operating_points"] = False
    plain = run(RunConfig.from_dict(keys), out=tmp_path / "plain")
    seen = run(RunConfig.from_dict({**keys, "training.pictures_every": 2}), out=tmp_path / "seen")
    assert [row["train_loss"] for row in seen.history] == [row["train_loss"] for row in plain.history]
    found = read_pictures(tmp_path / "seen")
    assert list(found) == [2, 4]
    assert read_pictures(tmp_path / "plain") == {}
    attention = found[4]["attention"]
    assert len(found[4]["images"]) == len(attention) == 4
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert not np.array_equal(found[2]["attention"], attention)
    assert ("decided" in found[4]) == (name not in ("vit", "aacn"))


def test_tensorboard_and_the_figures_of_the_run_show_them(tiny: dict[str, Any], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    keys = {**tiny, "dataset.num_train": 64, "training.num_epochs": 2, "training.pictures_every": 1}
    run(RunConfig.from_dict(keys), out=tmp_path)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    images = events.Images("pictures/attention")
    assert [(image.step, image.width / image.height) for image in images] == [(1, 4.0), (2, 4.0)]
    inspected = inspect_run(tmp_path)
    last = inspected.pictures[2]
    assert inspected.samples is not None
    np.testing.assert_array_equal(last["images"], inspected.samples.images[:4])
    np.testing.assert_array_equal(last["decided"].reshape(4, -1), inspected.samples.routed[:4])
    softmax = torch.from_numpy(inspected.samples.scores[:4]).softmax(1).numpy()
    np.testing.assert_allclose(last["attention"].reshape(4, -1), softmax, rtol=1e-5)
    assert "attention_while_training.png" in [path.name for path in draw_run(inspected, tmp_path / "figures")]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"training.pictures_every": 1}, r"training\.pictures_every 1: HyperIqa has no attention to look at"),
        ({"training.learning_rate_multipliers": {"nose": 2}}, r"multipliers: HyperIqa has no part 'nose'"),
    ],
)
def test_a_model_that_cannot_is_refused_before_anything_is_written(
    keys: dict[str, Any], said: str, tiny_quality: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        run(RunConfig.from_dict({**tiny_quality, **keys}), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_that_trains_too_little_says_that_it_takes_no_pictures(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {**tiny, **VIT, "dataset.num_train": 64, "training.num_epochs": 1, "training.pictures_every": 1}
    keys["evaluation.operating_points"] = False
    none = "training.pictures_every 1: no pictures, since 0 epochs are trained here"
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    for out, further, expected in (
        ("first", {"training.reuse": True}, False),
        ("second", {"training.reuse": True}, True),
        ("frozen", {"training.num_epochs": 0, "model.weights": str(tmp_path / "first")}, True),
    ):
        said: list[str] = []
        run(RunConfig.from_dict({**keys, **further}), out=tmp_path / out, say=said.append)
        assert (none in said) == expected
        assert bool(read_pictures(tmp_path / out)) != expected


def test_pictures_do_not_make_another_training(tiny: dict[str, Any], tmp_path: Path) -> None:
    """A training that is taken up again, or reused, may have pictures or not."""
    from routing.training.checkpoint import identity

    configs = [RunConfig.from_dict({**tiny, **VIT, "training.pictures_every": n}) for n in (None, 3)]
    data = configs[0].dataset.load()
    assert identity(configs[0], data) == identity(configs[1], data)


@pytest.mark.parametrize(("spread", "digits"), [(10.0, 1), (0.1, 3), (1e-3, 5)])
def test_the_figure_of_patch_scores_prints_as_many_digits_as_tell_patches_apart(spread: float, digits: int) -> None:
    scores = -2 + spread * np.linspace(0, 1, 16)
    assert digits_to_tell_apart(scores) == digits
    samples = PatchSamples(
        images=np.zeros((1, 1, 32, 32), np.uint8), targets=np.zeros(1, int), predictions=np.zeros(1, int),
        scores=scores[None].astype(np.float32), routed=np.zeros((1, 16), bool), grid=4,
    )  # fmt: skip
    figure = _score_grid(Inspection("a run", [], (), samples, None, None, None), samples)
    printed = {text.get_text() for text in figure.axes[0].texts}
    assert len(printed) == 16


def test_a_strip_shows_the_first_and_the_last_epoch() -> None:
    assert shown_epochs([5]) == [5]
    assert shown_epochs(list(range(1, 101)))[:: MOST - 1] == [1, 100]
    assert len(shown_epochs(list(range(1, 101)))) == MOST
