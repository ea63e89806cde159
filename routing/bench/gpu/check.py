"""``make gpu-check``: one part after another, each in a process of its own, so that none can spoil or outlast the rest.

    python -m routing.bench.gpu.check [--quick | --tiny] [--device cuda|cpu] [--out gpu.json] [--markdown gpu.md]

What is done is written at once. It needs what ``routing`` imports, and nothing of Ray or Optuna.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from routing.bench.gpu import inference, latency, packing, stacked, throughput
from routing.bench.gpu.sizes import SIZES, Sizes
from routing.bench.tables import BenchTable, machine, markdown, provenance
from routing.files.atomic import write_json, write_text
from routing.training.seeding import prepare_process

MODULE = "routing.bench.gpu.check"
PARTS: dict[str, Callable[[Sizes, str], list[BenchTable]]] = {
    "throughput": throughput.bench,
    "packing": packing.bench,
    "latency": latency.bench,
    "routing": inference.routing,
    "pruning": inference.tokens,
    "literature": inference.of_the_literature,
    "stacked": stacked.bench,
}
"""What is measured, in the order of its worth should time run out; before it, the tests."""
SECONDS = {"full": 345.0, "quick": 115.0, "tiny": 300.0}
TESTS = ("tests/routing/test_waits.py", "tests/routing/test_on_gpu.py")
FEW = "top_k or bf16"
"""Which of the tests a check of the check runs."""
COLUMNS = {"part": "part", "seconds": "seconds", "ended": "ended"}


def check(size: str, device: str, out: Path, report: Path, parts: Sequence[str] = ("tests", *PARTS)) -> bool:
    """Run the parts within the time of a size, write both files after each, and return whether all went well."""
    until, tables, notes = time.monotonic() + SECONDS[size], list[dict[str, Any]](), list[dict[str, Any]]()
    command = f"make gpu-check{'' if size == 'full' else f' ARGS=--{size}'}"
    for part in parts:
        started = time.monotonic()
        found, ended = _tests(size, until) if part == "tests" else _measured(part, size, device, until)
        tables += found
        notes.append({"part": part, "seconds": time.monotonic() - started, "ended": ended})
        print(f"{part}: {ended}, {notes[-1]['seconds']:.1f} s", flush=True)
        write_json(
            out, {"command": command, "commit": _commit(), "machine": machine(), "parts": notes, "tables": tables}
        )
        shown = [BenchTable("parts", COLUMNS, notes), *(BenchTable(**table) for table in tables)]
        commit = f"commit {_commit() or 'unknown'}"
        write_text(report, "\n\n".join([f"{provenance(command)} {commit}.", *map(markdown, shown)]) + "\n")
    return all(note["ended"] == "done" for note in notes)


def _measured(part: str, size: str, device: str, until: float) -> tuple[list[dict[str, Any]], str]:
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "tables.json"
        words = [sys.executable, "-m", MODULE, f"--{size}", "--device", device, "--part", part, "--out", str(found)]
        ended = _run(words, until)
        return (json.loads(found.read_text()) if found.exists() else []), ended


def _tests(size: str, until: float) -> tuple[list[dict[str, Any]], str]:
    few = ["-k", FEW] if size == "tiny" else []
    return [], _run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *few, *TESTS], until)


def _run(words: Sequence[str], until: float) -> str:
    """Return ``done``, or in one line why not; what is stopped takes the processes it started along."""
    left = until - time.monotonic()
    if left <= 0:
        return "left out: no time left"
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            out, error = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            return f"stopped after {left:.0f} s"
        finally:
            with suppress(ProcessLookupError):  # trainings that wait for a start signal would wait for ever
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 0:
        return "done"
    lines = (error.strip() or out.strip()).splitlines()
    return f"exit code {process.returncode}: {lines[-1][:200] if lines else 'nothing said'}"


def _commit() -> str | None:
    try:
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything, or one part."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description="Measure a GPU, in minutes.")
    size = parser.add_mutually_exclusive_group()
    for name in SIZES:
        size.add_argument(f"--{name}", action="store_const", const=name, dest="size", help=f"{SECONDS[name]:.0f} s")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], help="Default: cuda; tiny sizes on a CPU need --device cpu."
    )
    parser.add_argument("--part", choices=list(PARTS), help="Only this part; --out is then its tables alone.")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--markdown", type=Path, default=Path("gpu.md"))
    parser.set_defaults(size="full")
    given = parser.parse_args(arguments)
    device = given.device or "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print("this machine has no GPU that torch can use (valid: --tiny --device cpu, which tests the check itself)")
        return 2
    if given.part is not None:
        prepare_process(0, 1)
        tables = PARTS[given.part](SIZES[given.size], device)
        write_json(given.out, [{"title": t.title, "columns": t.columns, "rows": list(t.rows)} for t in tables])
        return 0
    return 0 if check(given.size, device, given.out, given.markdown) else 1


if __name__ == "__main__":
    sys.exit(main())
