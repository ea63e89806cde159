"""Augmentation: each image moved in its own way, the same again for the same seed and epoch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from routing.config.run import RunConfig
from routing.data.augment import Augment
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


def test_places_do_not_move_along(tiny: dict[str, Any]) -> None:
    config = RunConfig.from_dict({**tiny, "model.router.mode": "oracle", "training.augment.flip": True})
    with pytest.raises(InputError, match=r"the box this model needs would not move along; switch it off"):
        run(config)
