"""Prompts and class names of zero-shot classification from a file: lines of text, or the JSON of clip_benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from routing.errors import InputError, choices, nearest
from routing.models.pretrained import one_line

_TEMPLATE = "'a photo of a {}.'"


def read_templates(path: Path, dataset: str = "") -> list[str]:
    """Return the prompts of a file, each with ``{}`` or ``{c}`` where the class name goes.

    Args:
        path: one prompt a line; or JSON: a list, or a mapping from the name of a data set to its list.
        dataset: the data set that is looked up in a mapping.
    """
    templates = _entries(path, "templates", dataset)
    bad = next((line for line in templates if "{}" not in line and "{c}" not in line), None)
    if bad is not None:
        raise InputError(
            f"templates {path}: every line needs {{}} where the class name goes, as in {_TEMPLATE}, not '{bad[:80]}'"
        )
    return templates


def read_class_names(path: Path, dataset: str, count: int) -> list[str]:
    """Return the names of ``count`` classes, in the order of their numbers; the file as for ``read_templates``."""
    names = _entries(path, "class_names", dataset)
    if len(names) != count:
        raise InputError(f"class_names {path}: {len(names)} names, but data set '{dataset}' has {count} classes")
    return names


def _entries(path: Path, key: str, dataset: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{key} {path}: not a readable text file: {one_line(error)}") from None
    if path.suffix.lower() == ".json" or (text.lstrip()[:1] in ("[", "{") and _is_json(text)):
        found = _json_entries(path, key, dataset, text)
    else:
        found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise InputError(f"{key} {path}: the file is empty (valid: one a line, or a list in JSON)")
    return found


def _is_json(text: str) -> bool:
    """Return whether text without a suffix that says so is JSON; a prompt may begin with ``{}``."""
    try:
        return isinstance(json.loads(text), (list, dict))
    except ValueError:
        return False


def _json_entries(path: Path, key: str, dataset: str, text: str) -> list[str]:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{key} {path}: not valid JSON: {one_line(error)}") from None
    if isinstance(value, dict):
        if dataset not in value and len(value) != 1:
            some = choices(list(value)[:10])
            raise InputError(
                f"{key} {path}: nothing for data set '{dataset}'{nearest(dataset, value)} (it has: {some})"
            )
        value = value[dataset] if dataset in value else next(iter(value.values()))
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise InputError(f"{key} {path}: not a list of texts, nor a mapping from the name of a data set to one")
    return [item.strip() for item in value]
