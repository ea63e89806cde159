"""Where a study is found: the studies of the package by name, files, results folders."""

from __future__ import annotations

import os
from pathlib import Path

from routing.errors import InputError, choices, nearest
from routing.files.results_folder import STUDY_FILE

_FOLDERS = ("sweeps", "ablations")


def shipped() -> dict[str, Path]:
    """Return the study files of the package by name."""
    here = Path(__file__).parents[1]
    return {path.stem: path for folder in _FOLDERS for path in sorted((here / folder).glob("*.yaml"))}


def study_text(name: str) -> str:
    """Return the file of a shipped study as it stands, comments included; an unknown name is an ``InputError``."""
    known = shipped()
    if name not in known:
        raise _no_such_study(name)
    return known[name].read_text(encoding="utf-8")


def _no_such_study(name: str) -> InputError:
    known = shipped()
    return InputError(f"{name}: no such study{nearest(Path(name).stem, known)} (shipped: {choices(known)})")


def found(path: str | os.PathLike[str]) -> Path:
    """Return the file of a study that is given as a file, a results folder or the name of a shipped one.

    Raises:
        InputError: there is none; a file that is named and missing is left to the reader of files.
    """
    file = Path(path)
    known = shipped()
    if str(path) in known:
        return known[str(path)]
    if file.is_dir():
        if not (file / STUDY_FILE).is_file():
            raise InputError(f"{path}: a folder without {STUDY_FILE}; give a study file or the name of a shipped study")
        return file / STUDY_FILE
    if file.name == str(path) and file.stem in known and not file.is_file():
        raise InputError(f"{path}: no such file; the shipped study is called '{file.stem}'")
    if file.is_file() or file.suffix in (".yaml", ".yml") or len(file.parts) > 1:
        return file
    raise _no_such_study(str(path))
