"""The benchmark of training forms: every way is timed against the same base, every augmentation runs."""

from __future__ import annotations

from routing.bench.timing import runs_bf16
from routing.bench.training import AUGMENTATIONS, BASE, augmentations, training_steps


def test_every_form_of_a_step_is_compared_with_the_base() -> None:
    rows = {row["way"]: row for row in training_steps("cpu", rounds=1, batch=4)}
    assert rows[BASE]["ratio"] == 1
    assert len(rows) == (4 if runs_bf16("cpu") else 2)
    assert all(row["ms_per_step"] > 0 for row in rows.values())


def test_every_augmentation_is_timed() -> None:
    rows = augmentations(16, rounds=1)
    assert [row["augmentation"] for row in rows] == list(AUGMENTATIONS)
    assert all(row["us_per_image"] > 0 for row in rows)
