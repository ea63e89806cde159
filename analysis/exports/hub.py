"""The front matter of a card: what the Hugging Face hub reads of a model, from the same numbers as the card's text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from analysis.findings.confirmed import confirmed_row, on_test_split
from routing.files.results_folder import MEAN
from routing.files.yaml_io import dump
from routing.quantities import find, label

if TYPE_CHECKING:
    from analysis.exports.card import Card

PIPELINES = {"classification": "image-classification"}
"""Tasks by the hub's names; it has none for image quality."""


def front_matter(card: Card, has_free_data: bool) -> str:
    """Return the YAML between two lines of dashes with which a card on the hub begins.

    Args:
        has_free_data: whether the data's licence is known to allow the weights to be given away under MIT.
    """
    config, task = card.config, "" if card.info is None else card.info.task
    content: dict[str, Any] = {"library_name": "routing-sweeps"}
    content |= (
        {"license": "mit"} if has_free_data else {"license": "other", "license_name": "terms-of-the-training-data"}
    )
    content |= {"pipeline_tag": PIPELINES[task]} if task in PIPELINES else {}
    content["tags"] = [config.model.name.replace("_", "-"), "conditional-computation"]
    content["tags"] += ["onnx"] if any(one.path.suffix == ".onnx" for one in card.files) else []
    split, metrics = _metrics(card)
    dataset = {"name": config.dataset.name, "type": config.dataset.name, "split": split}
    result = {"task": {"type": PIPELINES.get(task, "other")}, "dataset": dataset, "metrics": metrics}
    content["model-index"] = [{"name": f"{card.summary.results.name}-{card.pick}", "results": [result]}]
    return f"---\n{dump(content)}---"


def _metrics(card: Card) -> tuple[str, list[dict[str, Any]]]:
    """Return the split and the task's metric on it: of fresh seeds on the test split where the point was confirmed."""
    task = card.summary.results.objectives[0].metric
    found, test = confirmed_row(card.confirmed, card.row), on_test_split(task)
    confirmed = None if found is None else found.get(f"{test}{MEAN}")
    if isinstance(confirmed, float) and not math.isnan(confirmed):
        return "test", [_metric(test, confirmed, f"mean of {int(found['n'])} fresh seeds")] if found is not None else []
    return "validation", [_metric(task, float(card.row[task]), "one seed; chosen on this split")]


def _metric(name: str, value: float, how: str) -> dict[str, Any]:
    known = find(name)
    return {"type": known.name if known else name, "value": round(float(value), 6), "name": f"{label(name)} ({how})"}
