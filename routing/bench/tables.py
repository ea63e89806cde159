"""Results of benchmarks: tables, stored as JSON and as Markdown, with the machine they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from routing.commands.console import text
from routing.files.atomic import write_json, write_text

NoneType = type(None)


@dataclass(frozen=True)
class BenchTable:
    """One table: ``columns`` maps keys of ``rows`` to headings."""

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]


def write_tables(tables: Sequence[BenchTable], path: Path) -> None:
    """Write all tables and the machine into one JSON file."""
    write_json(path, {"machine": machine(), "tables": {table.title: list(table.rows) for table in tables}})


def append_markdown(tables: Sequence[BenchTable], path: Path, command: str) -> None:
    """Append the tables to a file, below a line with the command, the date and the machine."""
    before = path.read_text(encoding="utf-8").rstrip("\n") + "\n\n" if path.exists() else ""
    write_text(path, before + "\n\n".join([provenance(command), *map(markdown, tables)]) + "\n")


def provenance(command: str) -> str:
    """Return one sentence: command, day, processor, versions."""
    found = machine()
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    gpu = found["gpu"] or "no GPU"
    return (
        f"`{command}`, {date.today()}: {found['processor']}, {found['cpu_count']} CPUs, {gpu}; "
        f"Python {found['python']}, {versions}."
    )


def markdown(table: BenchTable) -> str:
    """Return a table under its title; numbers as on the screen, columns without any value left out."""
    texts = {key: [text(key, row.get(key)).replace("|", "\\|") for row in table.rows] for key in table.columns}
    shown = [key for key, cells in texts.items() if any(cells)]
    numeric = {key: all(isinstance(row.get(key), (int, float, NoneType)) for row in table.rows) for key in shown}
    lines = [
        [table.columns[key] for key in shown],
        ["--:" if numeric[key] else "---" for key in shown],
        *zip(*(texts[key] for key in shown), strict=True),
    ]
    return "\n".join([f"### {table.title}", "", *(f"| {' | '.join(line)} |" for line in lines)])


def machine() -> dict[str, Any]:
    """Return the environment that the numbers depend on: processor, cores, threads, versions."""
    return {
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for package in ("routing-sweeps", "torch", "ray", "optuna"):
        with suppress(PackageNotFoundError):
            yield package, version(package)


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
