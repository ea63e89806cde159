"""What is wrong with a configuration, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from routing.config.registry import DATASETS, MODELS
from routing.errors import choices, nearest, shown


def unknown_first(error: ValidationError) -> list[ErrorDetails]:
    """Return the problems of a validation, unknown keys before what is missing because of their spelling."""
    return sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")


def explain_run(error: ValidationError, values: dict[str, Any], valid: Sequence[str]) -> str:
    """Return the first problem of a validation as one line, with the nearest of ``valid``; and how many more."""
    problems = unknown_first(error)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        text = _unknown_key(key, first["input"], values, valid)
    elif first["type"] == "missing":
        text = f"'{key}' is missing; it has no default"
    elif (remedy := how_to_write(first)) is not None:
        text = f"{key}: {remedy}"
    else:
        message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if first["type"] == "value_error":
            text = message if key.split(".")[0] in message or not key else f"{key}: {message}"
        else:
            text = (
                f"{key}: must be {message}, not {shown(first['input'])}"
                if first["msg"].startswith("Input should be")
                else f"{key}: {message}; got {shown(first['input'])}"
            )
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join(text.split()) + more


def how_to_write(problem: ErrorDetails) -> str | None:
    """Return what to write where one value was given for a list, or for a section that has a name."""
    found = problem["input"]
    if problem["type"] in ("tuple_type", "list_type") and isinstance(found, (str, int, float)):
        inside = ", ".join(part.strip() for part in str(found).split(","))
        return f"a list is needed, not {shown(found)}; write '[{inside[:80]}]'"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type") and isinstance(found, str):
        last = problem["loc"][-1] if problem["loc"] else ""
        return f"must be a valid dictionary, not {shown(found)}; write {last}: {{name: {found[:60]}}}, or {last}.name"
    return None


def _unknown_key(key: str, found: Any, values: dict[str, Any], valid: Sequence[str]) -> str:
    section = key.split(".")[0]
    if "." not in key and isinstance(found, str) and (where := _named(key, found)):
        return f"unknown key '{key}'; did you mean '{where} {found}'?"
    for name, registry, default in (("model", MODELS, "attention_routing"), ("dataset", DATASETS, "digits")):
        if section != name:
            continue
        current = values.get(name, {}).get("name", default)
        owners = [n for n in registry if n != current and _declares(registry.get(n), key.split(".")[1:])]
        if owners:
            return f"key '{key}' belongs to {registry.kind} {choices(owners)}, not to '{current}'"
    while isinstance(found, dict) and len(found) == 1:  # a whole section that is misspelled: name its one key
        part, found = next(iter(found.items()))
        key = f"{key}.{part}"
    if isinstance(found, dict):
        valid = list(dict.fromkeys(name.rpartition(".")[0] for name in valid if "." in name))
    return f"unknown key '{key}'{nearest(key, valid)}"


def _named(key: str, found: str) -> str | None:
    """Return ``dataset.name`` for the likes of ``--data mnist``."""
    for section, registry in (("model", MODELS), ("dataset", DATASETS)):
        if found in registry and (section.startswith(key) or key in registry.kind):
            return f"{section}.name"
    return None


def _declares(section: Any, path: list[str]) -> bool:
    for part in path:
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            return False
        section = field.annotation
    return True
