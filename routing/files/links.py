"""Symbolic links in a folder of unknown origin: following one must not read or write a file outside the folder."""

from __future__ import annotations

import os
from pathlib import Path

from routing.errors import InputError
from routing.files.results_folder import LEDGER_FILE, LOCK_FILE

_LOCKED_IN_PLACE = (LOCK_FILE, LEDGER_FILE)
"""Files that are opened where they are, not written beside and renamed: a second name of them is another file's."""


def check_links(folder: Path) -> None:
    """See that nothing in a folder of results leads out of it; the folder itself may be a link.

    Raises:
        InputError: a symbolic link that leaves the folder or leads nowhere, or a lock or ledger with a second name.
    """
    root = Path(folder).resolve()
    waiting = [root] if root.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    _check_target(Path(entry.path), root, folder)
                elif entry.is_dir():
                    waiting.append(Path(entry.path))
                elif entry.name in _LOCKED_IN_PLACE and entry.stat().st_nlink > 1:
                    raise InputError(
                        f"{folder}: {entry.name} is a hard link to another file; remove it, or copy the file"
                    )


def _check_target(link: Path, root: Path, folder: Path) -> None:
    target = link.resolve()
    if not target.exists() or not target.is_relative_to(root):
        raise InputError(
            f"{folder}: {link.relative_to(root)} is a link to {os.readlink(link)}, outside the folder; put a copy in "
            "its place, or remove it"
        )
