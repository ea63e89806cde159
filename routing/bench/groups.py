"""What ``routing bench`` does: the asked groups one after another, their tables printed and written."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from routing.bench import GROUPS
from routing.bench.tables import append_markdown, write_tables
from routing.commands.console import say, table
from routing.errors import MissingPackage


def run_groups(names: Sequence[str], quick: bool, out: Path, markdown: Path | None) -> None:
    """Run groups of benchmarks; of several, those whose optional package is missing are left out and named.

    Raises:
        MissingPackage: the only group needs it.
    """
    tables = []
    for name in names:
        try:
            found = import_module(GROUPS[name]).bench(quick)
        except MissingPackage as error:
            if len(names) == 1:
                raise
            say(f"left out: {name}: {error}")
            continue
        for one in found:
            table(one.rows, one.columns, title=one.title)
        tables += found
        write_tables(tables, out)  # a later one may fail
        if markdown is not None:
            append_markdown(found, markdown, f"routing bench {name}{' --quick' if quick else ''}")
    say(f"wrote {out}" if markdown is None else f"wrote {out} and {markdown}")
