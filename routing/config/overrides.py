"""Changes of a run from the command line, and which other keys a change of model or data set keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from routing.config.recipe import asked
from routing.config.registry import DATASETS, MODELS
from routing.config.section import DatasetSection, ModelSection, Section
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
    return _switch_network(tree, changes)


def _switch_network(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Do the same for a model inside the model (``model.network``)."""
    model, name = tree.get("model"), changes.get("model.network.name")
    old = model.get("network") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(old, dict) or not isinstance(name, str) or name not in MODELS:
        return tree
    if old.get("name") == name:
        return tree
    kept = {key: value for key, value in old.items() if key in MODELS.get(name).model_fields and key != "name"}
    network = {**_valid_for(MODELS.get(name), kept), "name": name}
    return {**tree, "model": {**model, "network": network}}


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


def split_overrides(overrides: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the overrides by dotted key: the key as it was written, and the text of its value."""
    found: dict[str, tuple[str, str]] = {}
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
        found[name] = (key, text)
    return found


def parse_overrides(
    overrides: Sequence[str], section: type[Section] = Section, values: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Turn ``["--model.router.mode", "top_k", "seed=1"]`` into ``{"model.router.mode": "top_k", "seed": 1}``.

    A key of ``section`` that holds text or a path takes the text as it stands; what else is given is read as YAML.

    Args:
        values: nested keys of a file; they name model and data set where the overrides do not.
    """
    words = split_overrides(overrides)

    def chosen(key: str) -> Any:
        if key in words:
            return words[key][1]
        node: Any = values or {}
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    changes: dict[str, Any] = {}
    for name, (key, text) in words.items():
        field = field_of(section, name, chosen)
        kind = None if field is None else field.annotation
        is_null = not text or (text in ("null", "Null", "NULL") and type(None) in get_args(kind))
        if takes_text(kind):
            changes[name] = None if is_null else text
        else:
            changes[name] = parse_scalar(text, f"value of {key}")
    return changes


def takes_text(kind: Any) -> bool:
    """Return whether a key of this type holds text, a path or one of some words, or else nothing."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return takes_text(inner[0])
    if origin in (Union, UnionType):
        return all(takes_text(option) for option in inner if option is not type(None))
    if origin is Literal:
        return all(isinstance(word, str) for word in inner)
    return kind in (str, Path)


def field_of(section: type[Section], key: str, chosen: Callable[[str], Any]) -> FieldInfo | None:
    """Return the field of a dotted key, None of one that there is not.

    Args:
        chosen: returns the value of ``model.name`` and the like, None where nothing is said.
    """
    *parents, last = key.split(".")
    for depth, part in enumerate(parents, start=1):
        field = section.model_fields.get(part)
        kind = field.annotation if field is not None else None
        if field is None or not (isinstance(kind, type) and issubclass(kind, Section)):
            return None
        section = kind
        if issubclass(kind, (DatasetSection, ModelSection)):
            registry = DATASETS if issubclass(kind, DatasetSection) else MODELS
            name = chosen(".".join([*parents[:depth], "name"]))
            if name is not None and name not in registry:
                return None
            section = registry.get(name) if name is not None else type(field.get_default(call_default_factory=True))
    return section.model_fields.get(last)
