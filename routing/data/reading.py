"""The decoded files of a data set, with notes for the user; free of torch.

A build takes tens of megabytes, torch takes hundreds: the files are read before it is imported.
"""

from __future__ import annotations

from pathlib import Path

from routing.data.files import Files
from routing.data.progress import note
from routing.data.sections import FileImagesSection
from routing.data.store import ENTRY_FILE, Store, check_damaged, open_store
from routing.data.view import View

_LISTED = 10
_SAID: set[Path] = set()  # stores that were spoken of


def read_store(section: FileImagesSection, name: str, files: Files, view: View) -> Store:
    """Return the decoded files; notes on them are printed once per process.

    Raises:
        InputError: a file is damaged, and ``dataset.on_damaged`` does not leave such files out.
    """
    store = open_store(name, files, view, keep=section.storage == "cache", workers=section.workers)
    if section.on_damaged == "error":
        check_damaged(store, files)
    if store.folder not in _SAID:
        _SAID.add(store.folder)
        if store.brightest:
            depth = store.view.bit_depth
            note(f"{name}: wide grey values, up to {store.brightest:,}, are read as {depth} bits (dataset.bit_depth)")
        for row, why in sorted(store.damaged.items())[:_LISTED]:
            note(f"{name}: left out: {files.absolute(row)}: {why}")
        if len(store.damaged) > _LISTED:
            note(f"{name}: left out: {len(store.damaged):,} files in all; {store.folder / ENTRY_FILE} lists them")
    return store
