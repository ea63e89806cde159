"""Plugins: modules of the user that register routers, data sets, models, aggregators or metrics under their own names.

A configuration names them (``plugins: [my_routers]``), so that every process that reads it, workers on other machines
included, imports them before it checks any name. A configuration may name code but not bring it along: a results
folder received from elsewhere is data and must not run code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from routing.errors import InputError
from routing.files.results_folder import METRICS_FILE, is_results_folder

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MOVED = {
    "routing.registry": "routing.config.registry",
    "routing.section": "routing.config.section",
    "routing.config": "routing.config.run",
    "routing.tasks": "routing.evaluation.tasks",
    "routing.compute": "routing.evaluation.compute",
    "routing.models.routers": "routing.models.patch.routers",
    "routing.models.aggregators": "routing.models.patch.aggregators",
    "routing.models.patch_parts": "routing.models.patch.parts",
    "routing.models.token_pruning": "routing.models.vit.token_pruning",
}
"""Modules that plugins were told to import from until 0.1.0, and where they are now."""
_FOLDERS_UP = 4  # results/confirm/trials/0/config.yaml: as deep as this program writes a configuration


def import_plugins(modules: Any, source: Path | None = None) -> None:
    """Import modules by name, from the Python path or from the folder the command was given in.

    That folder itself is never on the path: the one module that is named comes from it, and nothing else that any
    library may look for.

    Args:
        modules: their names.
        source: the file that names them. What the folder of the command has only beside that file, or in the results
            folder that it is part of, is not imported.

    Raises:
        InputError: not a list of module names, a module of Python itself, one that is not found or came with
            ``source``, or one that cannot be imported.
    """
    names = modules if isinstance(modules, (list, tuple)) else [] if modules is None else [modules]
    for name in names:
        if not isinstance(name, str) or not _MODULE.fullmatch(name) or name.endswith(".py"):
            hint = f"; write {Path(name).stem}" if isinstance(name, str) and name.endswith(".py") else ""
            raise InputError(f"plugins: {name!r} is not the name of a Python module{hint}")
        if name.partition(".")[0] in sys.stdlib_module_names or "__main__" in name.split("."):
            raise InputError(
                f"plugins: '{name}' is a module of Python or a program, not a plugin (valid: modules of yours)"
            )
        if name not in sys.modules:
            if source is not None:
                _check_origin(name, source)
            _import(name)


def digest(modules: Iterable[str]) -> str:
    """Return a digest of the source of imported plugins: what they compute may change with it."""
    found = hashlib.sha256()
    for name in modules:
        file = getattr(sys.modules.get(name), "__file__", None)
        found.update(Path(file).read_bytes() if file else b"")
    return found.hexdigest()


def _check_origin(name: str, source: Path) -> None:
    """Raise ``InputError`` for a module that came into the current folder together with the file ``source``."""
    here = Path.cwd().resolve()
    elsewhere = [entry for entry in sys.path if entry and Path(entry).resolve() != here]
    if PathFinder.find_spec(name.partition(".")[0], elsewhere) is not None:
        return  # installed, or in PYTHONPATH
    file = source.resolve()
    folder = _results_folder(file)
    for code in _code_of(name, here):
        shared = _shared_folder(code, folder or file.parent)
        if shared == folder or (shared != here and shared.is_relative_to(here)):
            raise InputError(
                f"plugins: '{name}' is {code}, which came with {source}: a file brings no code along; move "
                "it into the folder the command is given in, or name its folder in PYTHONPATH"
            )


def _results_folder(file: Path) -> Path | None:
    """Return the outermost results or run folder that a configuration or study file is part of."""
    around = file.parents[:_FOLDERS_UP]
    return next((folder for folder in reversed(around) if _is_written_by_us(folder)), None)


def _is_written_by_us(folder: Path) -> bool:
    return is_results_folder(folder) or (folder / METRICS_FILE).exists()


def _code_of(name: str, here: Path) -> Iterator[Path]:
    """Yield the files that importing ``name`` from the folder ``here`` runs: of the packages around it, and its own."""
    parts = name.split(".")
    places: list[str] | None = [str(here)]
    for count in range(1, len(parts) + 1):
        spec: ModuleSpec | None = PathFinder.find_spec(".".join(parts[:count]), places)
        if spec is None:
            return
        if spec.origin is not None:
            yield Path(spec.origin).resolve()
        places = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        if places is None:
            return


def _shared_folder(code: Path, folder: Path) -> Path:
    """Return the innermost folder that both lie in."""
    return next(parent for parent in (folder, *folder.parents) if code.is_relative_to(parent))


def _import(name: str) -> None:
    here = Path.cwd()
    try:
        with _path_without(here):
            top = name.partition(".")[0]
            if importlib.util.find_spec(top) is None:
                _import_from(here, top)
            importlib.import_module(name)
    except InputError:
        raise
    except ImportError as error:
        if error.name in _MOVED:
            raise InputError(
                f"plugins: '{name}' cannot be imported: {error.name} is now {_MOVED[error.name]}; import from there"
            ) from None
        if not isinstance(error, ModuleNotFoundError):
            raise InputError(f"plugins: '{name}' cannot be imported: {_one_line(error)}") from None
        missing = f"no module '{error.name}'"
        raise InputError(f"plugins: '{name}' cannot be imported: {missing} on the Python path or in {here}") from None
    except (Exception, SystemExit) as error:  # a plugin may do anything
        raise InputError(f"plugins: '{name}' cannot be imported: {_one_line(error)}") from None


@contextmanager
def _path_without(folder: Path) -> Iterator[None]:
    """Take a folder off the Python path meanwhile; ``python -m routing`` and Ray put the current one there."""
    before = list(sys.path)
    sys.path[:] = [entry for entry in before if entry and Path(entry).resolve() != folder.resolve()]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _import_from(folder: Path, name: str) -> None:
    """Import the one module or package ``name`` of a folder."""
    spec = PathFinder.find_spec(name, [str(folder)])
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def leave_current_folder() -> None:
    """Take the current folder off the Python path for good, unless this package itself lies in it."""
    here = Path.cwd().resolve()
    if here != Path(__file__).resolve().parents[2]:
        sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != here]


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
