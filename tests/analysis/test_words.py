"""Numbers as people read them."""

from __future__ import annotations

import pytest

from analysis.words.words import arm_in_words, at_knob, axis_label, count, shown
from routing.commands.console import text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (312_400, "312 k"),
        (1.4e6, "1.40 M"),
        (4.599e9, "4.60 G"),
        (999_999, "1.00 M"),
    ],
)
def test_count(value, text):
    assert count(value) == text


def test_shown():
    assert shown("val_accuracy", 0.8751) == "87.51 %"
    assert shown("flops", 312_400.0) == "312 k"
    assert shown("reason", None) == ""
    assert shown("routing_ratio", float("nan")) == ""
    assert shown("ms_per_image", 1.5) == "1.5 ms per image"
    assert shown("val_top5_accuracy", 0.9) == "90.00 %"
    assert axis_label("flops") == "compute (multiply-adds per image)"
    assert axis_label("my_metric") == "my metric"


def test_a_point_is_named_with_its_knob() -> None:
    assert at_knob({"knob": "threshold", "knob_value": 0.5}) == ", threshold 0.5"
    assert at_knob({"knob": "share", "knob_value": "0.25"}) == ", share 0.25"
    assert at_knob({"knob": "scales,crops", "knob_value": "scales=2,crops=1"}) == ", scales=2,crops=1"
    assert at_knob({"knob": None, "knob_value": None}) == at_knob({"knob": "x", "knob_value": float("nan")}) == ""


def test_a_count_has_the_same_digits_on_the_terminal_and_in_the_report() -> None:
    for value in (312.0, 612_446.0, 1_565_840.0, 4.6e9):
        assert text("flops", value) == shown("flops", value) == count(value)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("model.router.mode=top_k", "router mode=top_k"),
        ("model.attention.alpha=0.1, training.num_epochs=5", "attention alpha=0.1, num epochs=5"),
        ("without model.attention.enabled", "without attention enabled"),
        ("mode=top_k", "mode=top_k"),
        ("weights=my_model.pth", "weights=my_model.pth"),
    ],
)
def test_an_arm_is_named_without_raw_keys(arm: str, words: str) -> None:
    assert arm_in_words(arm) == words
