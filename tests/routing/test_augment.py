"""Augmentation: each image moved in its own way, the same again for the same seed and epoch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from routing.config.augment import AugmentSection
from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.data.augment import Augment, image_steps, mixing
from routing.errors import InputError
from routing.runner import run


def augment(crop: int, flip: bool, seed: int = 0) -> Augment:
    return Augment(crop, flip, torch.Generator().manual_seed(seed))


def pictures(count: int = 200) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, 9, 9), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_a_flip_is_a_flip_of_about_half() -> None:
    images = pictures()
    moved = augment(0, True)(images)
    same = (moved == images).flatten(1).all(1)
    mirrored = (moved == images.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.14)  # four standard errors of 200


def test_a_crop_is_a_shift_that_reflects_at_the_edge() -> None:
    images = pictures()
    moved = augment(2, False)(images)
    assert moved.dtype == torch.uint8
    assert moved.shape == images.shape
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    seen = set()
    for image, result in zip(padded, moved, strict=True):
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(image[:, top : top + 9, left : left + 9], result)
        ]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 25  # every shift occurs among 200 images (missing one: 200 * (24/25)^200 < 0.01)


def test_a_shift_of_more_than_the_image_reflects_again() -> None:
    image = torch.arange(3, dtype=torch.uint8).view(1, 1, 1, 3).expand(50, 1, 3, 3)
    moved = augment(5, False)(image)
    rows = {tuple(row) for row in moved[:, 0, 0].tolist()}
    assert rows == {(0, 1, 2), (1, 2, 1), (2, 1, 0), (1, 0, 1)}  # windows of 0 1 2 1 0 1 2 1 ...


def test_same_seed_same_images() -> None:
    images = pictures()
    assert torch.equal(augment(2, True)(images), augment(2, True)(images))
    assert not torch.equal(augment(2, True)(images), augment(2, True, seed=1)(images))


def test_a_run_is_changed_by_it_and_repeats(tiny: dict[str, Any]) -> None:
    plain, first, second = (
        run(RunConfig.from_dict({**tiny, "training.augment.crop": crop})).history[0] for crop in (0, 3, 3)
    )
    assert first["train_loss"] == second["train_loss"] != plain["train_loss"]


INFO = DataInfo("classification", 3, 9, 4, (0.5, 0.25, 0.75), (1.0, 1.0, 1.0))
KINDS: dict[str, dict[str, Any]] = {
    "resized_crop": {"resized_crop": 0.3},
    "rand_augment": {"rand_augment": 2},
    "trivial_augment": {"trivial_augment": True},
    "color_jitter": {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
    "random_erasing": {"random_erasing": 1.0},
}


def steps(seed: int = 0, **keys: Any) -> Any:
    return image_steps(AugmentSection(**keys), INFO, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_is_varied_in_its_own_way_and_again_for_the_same_seed(kind: str) -> None:
    one = pictures(1)
    images = one.expand(60, -1, -1, -1)
    before = torch.random.get_rng_state()
    varied = steps(**KINDS[kind])(images)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (varied.dtype, varied.shape) == (torch.uint8, images.shape)
    assert len(varied.flatten(1).unique(dim=0)) > 20
    assert torch.equal(steps(**KINDS[kind])(images), varied)
    assert not torch.equal(steps(seed=1, **KINDS[kind])(images), varied)
    several = steps(**KINDS[kind])
    assert not torch.equal(several(images), several(images))  # another batch of the epoch


def test_they_add_up_and_nothing_is_nothing() -> None:
    assert steps() is None
    images = pictures(20)
    everything = steps(crop=1, flip=True, **{key: value for keys in KINDS.values() for key, value in keys.items()})
    assert everything(images).shape == images.shape
    assert torch.equal(steps(crop=2, flip=True)(images), augment(2, True)(images))  # as before there were others


def test_what_is_erased_is_a_rectangle_in_the_mean_colour() -> None:
    images = torch.full((30, 3, 9, 9), 7, dtype=torch.uint8)
    erased = steps(random_erasing=1.0)(images)
    for image in erased:
        found = image[0] != 7
        rows, columns = found.any(1), found.any(0)
        assert int(found.sum()) == int(rows.sum()) * int(columns.sum()) > 0
        assert image[:, found].unique(dim=1).flatten().tolist() == [128, 64, 191]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_targets_are_mixed_as_their_images_are(kind: str) -> None:
    """Images of class 1 are white, those of class 0 black: how bright a mixed one is says what its target must be."""
    targets = torch.tensor([0, 1] * 8)
    images = targets.float().view(-1, 1, 1, 1).expand(-1, 3, 9, 9).clone()
    mix = mixing(AugmentSection(**{kind: 1.0}), INFO, torch.Generator().manual_seed(0))
    assert mix is not None
    shares = []
    for _ in range(5):
        mixed, soft = mix(images.clone(), targets)
        assert soft.shape == (16, 4)
        torch.testing.assert_close(soft.sum(1), torch.ones(16))
        torch.testing.assert_close(soft[:, 1], mixed.mean(dim=(1, 2, 3)))
        shares.append(float(soft[0, 0]))
    assert len(set(shares)) == 5


def test_of_two_ways_to_mix_a_batch_takes_one() -> None:
    mix = mixing(AugmentSection(mixup=1.0, cutmix=1.0), INFO, torch.Generator().manual_seed(0))
    assert mix is not None
    targets = torch.tensor([0, 1] * 8)
    images = targets.float().view(-1, 1, 1, 1).expand(-1, 3, 9, 9)
    pasted = [bool(((mixed == 0) | (mixed == 1)).all()) for mixed, _ in (mix(images, targets) for _ in range(40))]
    assert 8 <= sum(pasted) <= 32  # one half; four standard deviations are 12.6
    assert mixing(AugmentSection(), INFO, torch.Generator()) is None


@pytest.mark.parametrize("key", ["crop", "flip", "resized_crop", "rand_augment", "trivial_augment", "mixup", "cutmix"])
def test_places_do_not_move_along(tiny: dict[str, Any], key: str) -> None:
    config = RunConfig.from_dict({**tiny, "model.router.mode": "oracle", f"training.augment.{key}": 1})
    with pytest.raises(
        InputError, match=rf"\({key}\), and the box this model needs would not move along; switch it off"
    ):
        run(config)


def test_what_leaves_places_alone_is_for_every_model(tiny: dict[str, Any]) -> None:
    keys = {"model.router.mode": "oracle", "training.augment.color_jitter.brightness": 0.2}
    run(RunConfig.from_dict({**tiny, **keys, "training.augment.random_erasing": 0.5}))


def test_only_classes_are_mixed() -> None:
    with pytest.raises(
        InputError, match=r"training\.augment\.cutmix 1\.0 is for classes, and the task of .* is quality"
    ):
        RunConfig.from_dict({"dataset.name": "quality", "model.name": "hyperiqa", "training.augment.cutmix": 1})
