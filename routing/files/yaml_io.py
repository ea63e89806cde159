"""YAML in and out: safe loading that knows line numbers, refuses duplicate keys and reads ``1e-3`` as a number."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from routing.errors import InputError

Lines = dict[tuple[str | int, ...], int]

_MOST_VALUES = 100_000
"""Values of a file, those behind aliases included: a few lines of aliases to aliases can stand for billions."""


class _Loader(yaml.SafeLoader):
    """``SafeLoader`` with YAML 1.2 floats; the C loader is not used because errors need marks of every node."""


class _Dumper(yaml.SafeDumper):
    """``SafeDumper`` that puts text which the loader would read as such a float in quotes."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def _one_line(error: yaml.YAMLError, where: str) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark is not None else where
    return f"{place}: not valid YAML: {what}"


def _walk(node: yaml.Node, path: tuple[str | int, ...], lines: Lines, where: str) -> None:
    lines[path] = node.start_mark.line + 1
    if len(lines) > _MOST_VALUES:
        raise InputError(f"{where}: more than {_MOST_VALUES:,} values, aliases included")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(getattr(key, "value", key))
            if name in seen:
                raise InputError(f"{where}:{key.start_mark.line + 1}: key '{name}' is given twice")
            seen.add(name)
            key_path = (*path, name)
            _walk(value, key_path, lines, where)
            lines[key_path] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, where)


def load_text(text: str, where: str = "YAML") -> tuple[Any, Lines]:
    """Parse YAML text.

    Returns:
        The value, and the line (from 1) of every key path in it.

    Raises:
        InputError: malformed YAML (file, line, column), a key given twice, an unsafe tag.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: Lines = {}
        _walk(node, (), lines, where)
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        raise InputError(_one_line(error, where)) from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def load_file(path: str | os.PathLike[str]) -> tuple[Any, Lines]:
    """Parse a YAML file; see ``load_text``. A missing, unreadable or binary file is an ``InputError``."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from None
    return load_text(text, str(path))


def as_cell(value: Any) -> Any:
    """Return a list or mapping as JSON, which YAML reads back, for the cell of a table; other values as they are."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, tuple, dict)) else value


def parse_scalar(text: str, where: str) -> Any:
    """Parse the value of a command-line override (``0.5``, ``[1, 2]``, ``top_k``)."""
    return load_text(text, where)[0]


def dump(value: Any) -> str:
    """Return ``value`` as YAML in its own key order; ``load_text`` reads it back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
