"""Every file is replaced in one step: written beside, then renamed, so that a reader never sees half of one."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LONGEST = 200
"""Characters of a name that stand in that of the file beside it: 255 bytes is the most that file systems take."""


def write_json(path: Path, content: Any) -> None:
    """Replace ``path`` by JSON in one step; NaN and infinities become null."""
    write_text(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step; nothing is left behind when it fails."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))  # a file's name need not be valid text


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one step; nothing is left behind when it fails."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path`` that takes its place in one step once it is written; a link is replaced.

    Its permissions are those of any new file of the user's. Nothing is left behind when writing fails, and the error
    names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:_LONGEST]}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, temporary, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error  # the name that the user knows
        raise


def _plain(value: Any) -> Any:
    """Return ``value`` fit for JSON: numpy scalars become numbers, NaN and infinities become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
