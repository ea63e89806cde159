"""Plugins: modules of the user that register routers, data sets, models, aggregators or metrics under their own names.

A configuration names them (``plugins: [my_routers]``), so that whoever reads it, a worker on another machine too,
imports them before it checks any name.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from routing.errors import InputError

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def import_plugins(modules: Any) -> None:
    """Import modules by name, from the Python path or from the folder the command was given in.

    Raises:
        InputError: not a list of module names, a module that is not found, or one that cannot be imported.
    """
    names = modules if isinstance(modules, (list, tuple)) else [] if modules is None else [modules]
    for name in names:
        if not isinstance(name, str) or not _MODULE.fullmatch(name) or name.endswith(".py"):
            hint = f"; write {Path(name).stem}" if isinstance(name, str) and name.endswith(".py") else ""
            raise InputError(f"plugins: {name!r} is not the name of a Python module{hint}")
        if name not in sys.modules:
            _import(name)


def _import(name: str) -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = f"no module '{error.name}'"
        raise InputError(f"plugins: '{name}' cannot be imported: {missing} on the Python path or in {here}") from None
    except InputError:
        raise
    except Exception as error:  # a plugin may do anything
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"plugins: '{name}' cannot be imported: {text}") from None
