"""Something that changes, shown again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def in_place() -> Callable[[Any], None]:
    """Return what shows an object: in a notebook in place of the one before, elsewhere its ``words()`` as a line."""
    try:
        from IPython import get_ipython
        from IPython.display import clear_output, display
    except ImportError:
        return _as_line
    if get_ipython() is None:
        return _as_line

    def show(thing: Any) -> None:
        clear_output(wait=True)
        display(thing)

    return show


def _as_line(thing: Any) -> None:
    print(thing.words(), flush=True)
