"""The public names of a package, each imported when it is first asked for: ``import routing`` itself stays light."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

PACKAGES = ("routing", "search_spaces", "analysis")


def _explain(error: ModuleNotFoundError) -> None:
    """Say which file or folder of the user's stands in for a package of ours, where one does."""
    top = (error.name or "").partition(".")[0]
    found = sys.modules.get(top)
    if top in PACKAGES and top != error.name and found is not None:
        where = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", [])), "?")
        raise ImportError(f"'{top}' is {where}, found before the package of routing-sweeps: rename it") from None


def public_face(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package whose public names live in other modules.

    Args:
        package: its name.
        homes: public name -> module that defines it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        try:
            return getattr(importlib.import_module(homes[name]), name)
        except ModuleNotFoundError as error:
            _explain(error)
            raise

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *homes})

    return get, names
