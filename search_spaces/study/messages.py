"""Errors in a study file as one line: where, which key, what is wrong, what would be valid."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from routing.config.explain import how_to_write, unknown_first
from routing.config.registry import DATASETS, MODELS
from routing.config.run import valid_keys
from routing.errors import choices, nearest, shown
from routing.files.yaml_io import Lines
from search_spaces.study.schema import AblationStudy, SweepStudy


class Places:
    """Turns a path of keys into ``file:line``, falling back to the nearest parent that has a line."""

    def __init__(self, where: str, lines: Lines) -> None:
        self.where, self.lines = where, lines

    def __call__(self, *path: Any) -> str:
        written = tuple(part if isinstance(part, int) else str(part) for part in path)
        split = tuple(piece for part in written for piece in (part.split(".") if isinstance(part, str) else [part]))
        best = max((self._known_part(keys) for keys in (written, split)), key=len)
        return f"{self.where}:{self.lines[best]}" if best else self.where

    def _known_part(self, keys: tuple[Any, ...]) -> tuple[Any, ...]:
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return keys


def first_problem(error: ValidationError, model: type[SweepStudy] | type[AblationStudy], place: Places) -> str:
    """Return the first problem as one line: where, key, what is wrong, what would be valid."""
    problems = unknown_first(error)
    first = problems[0]
    path = first["loc"]
    key = ".".join(str(part) for part in path)
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    if first["type"] == "extra_forbidden":
        fields = _fields_at(model, path[:-1])
        message = f"unknown key '{key}'{nearest(str(path[-1]), fields)} (valid: {choices(fields)})"
    elif first["type"] == "missing":
        message = f"'{key}' is missing"
    elif (remedy := how_to_write(first)) is not None:
        message = f"{key}: {remedy}"
    elif first["type"] == "value_error":
        message = message if not key or message.startswith(key) else f"{key}: {message}"
    else:
        message = f"{key}: {message[:1].lower()}{message[1:]}, not {shown(first['input'])}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place(*path)}: {message}{more}"


def _fields_at(model: type[Any], path: tuple[Any, ...]) -> list[str]:
    """Return the keys that are valid at a path of the study."""
    schema = TypeAdapter(model).json_schema()
    node: dict[str, Any] = schema
    for part in path:
        node = _resolve(node, schema)
        inner = node.get("properties", {}).get(part) if isinstance(part, str) else None
        if inner is None:
            extra = node.get("additionalProperties")
            inner = node.get("items") or (extra if isinstance(extra, dict) else {})
        node = inner
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target: dict[str, Any] = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        return target
    for option in node.get("anyOf", []):
        if "$ref" in option:
            return _resolve(option, schema)
    return node


def why_unknown(key: str, known: list[str], names: dict[str, list[str]]) -> str:
    """Name the nearest valid key, or the model that does have this one."""
    for section, registry in (("model", MODELS), ("dataset", DATASETS)):
        owners = [
            name for name in registry if key in valid_keys({section: {"name": name}}) and key.startswith(f"{section}.")
        ]
        if owners:
            mine = choices(names[f"{section}.name"])
            return f"key '{key}' belongs to {registry.kind} {choices(owners)}, not to {mine}"
    return f"unknown key '{key}'{nearest(key, known)}"
