"""YAML in and out: safe loading that knows line numbers, refuses duplicate keys and reads ``1e-3`` as a number."""

from __future__ import annotations

import json
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from routing.errors import InputError

Lines = dict[tuple[str | int, ...], int]

_MOST_VALUES = 100_000
"""Values of a file, those behind aliases included: a few lines of aliases to aliases can stand for billions."""


_MOST_CHARACTERS = 1_000_000
"""Characters of a text that is read at all."""


class _Loader(yaml.SafeLoader):
    """``SafeLoader`` with the numbers of YAML 1.2: 1e-3 is a float, 010 is ten, 12:30 and 2024-01-05 are text.

    The C loader is not used because errors need marks of every node.
    """

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        """Return a decimal number also after leading zeros, which YAML 1.1 takes for the sign of an octal one."""
        text = str(self.construct_scalar(node))
        if re.fullmatch(r"[-+]?0[0-9_]+", text):
            return int(text.replace("_", ""))
        return text if ":" in text else super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        """Return a number, not one of base 60."""
        text = str(self.construct_scalar(node))
        return text if ":" in text else super().construct_yaml_float(node)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


class _Dumper(yaml.SafeDumper):
    """``SafeDumper`` that puts text which the loader would read as such a float in quotes."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


_HINTS = {
    "could not find expected ':'": "a key and its value need a colon and a space between them",
    "found character '\\t' that cannot start any token": "a tab; lines are indented with spaces",
}
"""What two messages of the parser mean for the one who wrote the file."""


def _one_line(error: yaml.YAMLError, where: str) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    if what in _HINTS:
        what = _HINTS[what]
        mark = getattr(error, "context_mark", None) or mark  # the key itself, not the line after it
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
    if len(text) > _MOST_CHARACTERS or text.count(",") + text.count("\n") > _MOST_VALUES:  # before it takes minutes
        raise InputError(f"{where}: too long (valid: {_MOST_CHARACTERS:,} characters, {_MOST_VALUES:,} values)")
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
        raise InputError(f"{where}: not valid YAML: {next(iter(str(error).splitlines()), '')[:100]}") from None
    except (AttributeError, IndexError, KeyError, TypeError):  # !!bool foo, !!timestamp foo, !!float ''
        raise InputError(f"{where}: not valid YAML: a value does not fit the tag (!!) before it") from None
    finally:
        if loader is not None:
            loader.dispose()


def load_file(path: str | os.PathLike[str]) -> tuple[Any, Lines]:
    """Parse a YAML file; see ``load_text``. A missing, unreadable or binary file is an ``InputError``."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{_beside(Path(path))}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from None
    return load_text(text, str(path))


def _beside(path: Path) -> str:
    """Return ``"; did you mean ...?"`` for a file of nearly that name in the same folder."""
    try:
        names = [file.name for file in path.parent.iterdir() if file.is_file()]
    except OSError:
        return ""
    by_stem = {Path(name).stem: name for name in sorted(names)}  # an ending alone makes no file alike
    close = get_close_matches(path.stem, by_stem, n=1)
    return f"; did you mean '{by_stem[close[0]]}'?" if close else ""


def as_cell(value: Any) -> Any:
    """Return a list or mapping as JSON, which YAML reads back, for the cell of a table; other values as they are."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, tuple, dict)) else value


def parse_scalar(text: str, where: str) -> Any:
    """Parse the value of a command-line override (``0.5``, ``[1, 2]``, ``top_k``)."""
    return load_text(text, where)[0]


def dump(value: Any) -> str:
    """Return ``value`` as YAML in its own key order; ``load_text`` reads it back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
