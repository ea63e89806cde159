"""What a benchmark returns and how it is kept: tables, and bench.json with the machine they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from routing.record import write_json


@dataclass(frozen=True)
class BenchTable:
    """One table: ``columns`` maps keys of ``rows`` to headings."""

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]


def write_tables(tables: Sequence[BenchTable], path: Path) -> None:
    """Write all tables and the machine into one JSON file."""
    write_json(path, {"machine": machine(), "tables": {table.title: list(table.rows) for table in tables}})


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, cores, threads, versions."""
    return {
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
