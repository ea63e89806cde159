"""Changes of a run from the command line, and what a change of model or data set leaves of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from routing.config.recipe import asked
from routing.config.registry import DATASETS, MODELS
from routing.config.section import Section
from routing.errors import InputError
from routing.files.yaml_io import parse_scalar


def switch_names(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Drop the keys of a section whose ``name`` a change replaces: they belong to another model or data set.

    Keys that the new section also declares are kept (``model.experts`` is shared by routed model and baselines).
    Another model keeps what the user set of the training and takes the rest from its own recipe.
    """
    whole, tree = tree, dict(tree)
    for section, registry in (("dataset", DATASETS), ("model", MODELS)):
        old = tree.get(section)
        name = changes.get(f"{section}.name")
        if name is None or not isinstance(old, dict) or old.get("name") == name or name not in registry:
            continue
        if section == "model" and "training" in tree:
            tree["training"] = asked(whole)
        fields = registry.get(name).model_fields
        kept = {key: value for key, value in old.items() if key in fields and key != "name"}
        tree[section] = {**_valid_for(registry.get(name), kept), "name": name}
    return tree


def _valid_for(section: type[Section], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values the section accepts one by one (``aggregator`` of no_routing is only ``mean``)."""
    kept = {}
    for key, value in values.items():
        try:
            section.__pydantic_validator__.validate_assignment(section.model_construct(), key, value)
        except ValidationError as error:
            if any(item["type"] != "frozen_instance" for item in error.errors()):
                continue
        kept[key] = value
    return kept


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn ``["--model.router.mode", "top_k", "seed=1"]`` into ``{"model.router.mode": "top_k", "seed": 1}``."""
    changes: dict[str, Any] = {}
    words = list(overrides)
    while words:
        word = words.pop(0)
        key, equals, text = word.partition("=")
        if not equals:
            if not word.startswith("--"):
                raise InputError(
                    f"'{word}' is not an override; write --dotted.key value, as in --training.num_epochs 2"
                )
            if not words:
                raise InputError(f"'{word}' has no value; write {word} VALUE")
            text = words.pop(0)
        name = key.removeprefix("--").replace("-", "_")
        if not name or "" in name.split("."):
            raise InputError(f"'{key}' is not a dotted key; write --dotted.key value")
        changes[name] = parse_scalar(text, f"value of {key}")
    return changes
