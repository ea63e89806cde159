"""The keys of a run as a person looks for them: as rows of a table, or as what can follow on a command line."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from routing.config.overrides import field_of
from routing.config.registry import DATASETS, MODELS
from routing.config.run import RunConfig, valid_keys
from routing.config.section import DatasetSection, ModelSection, Section, nested

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def key_rows() -> list[dict[str, Any]]:
    """Return a row per key; one that several models or data sets share alike is one row."""
    rows = _of_section(RunConfig, "", "")
    for section, registry in (("dataset", DATASETS), ("model", MODELS)):
        shared: dict[tuple[Any, ...], tuple[dict[str, Any], list[str]]] = {}
        for name in registry:
            for row in _of_section(registry.get(name), f"{section}.", name):
                shared.setdefault(tuple(row[k] for k in ("key", "type", "default")), (row, []))[1].append(name)
        rows += [{**row, "of": ", ".join(owners)} for row, owners in shared.values()]
    return sorted(rows, key=lambda row: row["key"])


def _of_section(section: type[Section], prefix: str, owner: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, (DatasetSection, ModelSection)):
            continue
        if isinstance(kind, type) and issubclass(kind, Section):
            rows += _of_section(kind, f"{prefix}{name}.", owner)
            continue
        limits = [f"{sign} {limit}" for bound, sign in _SIGNS.items() for limit in _limits(field, bound)]
        default = "" if field.is_required() else str(field.get_default(call_default_factory=True))
        key = {
            "key": f"{prefix}{name}",
            "type": ", ".join([_type_words(kind), *limits]),
            "default": default,
            "of": owner,
        }
        rows.append({**key, "description": field.description or ""})
    return rows


def _type_words(kind: Any) -> str:
    """Return a type as a person writes its values: ``list of int``, ``float | null``."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type_words(inside[0])
    if origin is Literal:
        return " | ".join(map(str, inside))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_words, inside))
    if origin is tuple:
        count = "" if inside[-1] is Ellipsis else f"{len(inside)} "
        return f"list of {count}{_type_words(inside[0])}"
    if origin is dict:
        return f"mapping of {_type_words(inside[0])} to {_type_words(inside[1])}"
    return "null" if kind is NoneType else getattr(kind, "__name__", str(kind))


def _limits(field: FieldInfo, bound: str) -> list[Any]:
    return [getattr(limit, bound) for limit in field.metadata if getattr(limit, bound, None) is not None]


def keys_of(given: Mapping[str, Any]) -> list[str]:
    """Return every dotted key that a run with these (``model.name``, ``dataset.name``) can have."""
    return valid_keys(nested(dict(given)))


def values_of(key: str, given: Mapping[str, Any]) -> list[str]:
    """Return the words that a key can have beside these values of others; none of a number or of free text."""
    *_, section, last = ["", *key.split(".")]
    if last == "name" and section in ("dataset", "model", "network"):
        return list(DATASETS if section == "dataset" else MODELS)
    field = field_of(RunConfig, key, given.get)
    if field is None:
        return []
    declared = field.json_schema_extra.get("enum") if isinstance(field.json_schema_extra, dict) else None
    if isinstance(declared, list):
        return [str(word) for word in declared]
    return list(dict.fromkeys(_words(field.annotation)))


def _words(kind: Any) -> list[str]:
    """Return the words of a type: of a choice between literals, of yes or no, of a union of both."""
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return [str(word) for word in get_args(kind) if word is not None]
    return [word for option in get_args(kind) for word in _words(option)]
