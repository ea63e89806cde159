"""How many trainings a device finishes in a minute when 1, 2, 4, ... processes share it.

Each process trains the same small configuration again and again for a while that begins and ends for all at once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from routing.bench.gpu.sizes import SIZES, Sizes, random_split
from routing.bench.tables import BenchTable

FAMILY = "attention_routing, top_k"
EPOCHS = 5
START_SECONDS = 120.0
COLUMNS = {
    "device": "device",
    "shared": "shared by",
    "processes": "processes",
    "trainings_per_minute": "trainings/minute",
    "ratio": "of one process, times",
    "failed": "left out",
}


def bench(sizes: Sizes, device: str) -> list[BenchTable]:
    """Return one table: a row per number of processes; with CUDA's multi-process service too where it starts."""
    rows = list(_rows(sizes, device, "the driver"))
    if device == "cuda":
        with _multi_process_service() as has_started:
            if has_started:
                rows += _as_far_as_it_works(sizes, device, "MPS")
    return [BenchTable(f"trainings at once: {FAMILY}, {sizes.steps * EPOCHS} steps of {sizes.batch}", COLUMNS, rows)]


def _rows(sizes: Sizes, device: str, shared: str) -> Iterator[dict[str, Any]]:
    alone = None
    for count in sizes.processes:
        rate = together(count, sizes, device)
        alone = rate if alone is None else alone
        row = {"device": device, "shared": shared, "processes": count, "trainings_per_minute": rate}
        yield {**row, "ratio": rate / alone}


def _as_far_as_it_works(sizes: Sizes, device: str, shared: str) -> Iterator[dict[str, Any]]:
    """Yield the rows until one fails, then a row with the reason: the rows measured before are kept."""
    try:
        yield from _rows(sizes, device, shared)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:  # a service that starts and serves nobody
        yield {"device": device, "shared": shared, "failed": " ".join(str(error).split())[-100:]}


def together(count: int, sizes: Sizes, device: str) -> float:
    """Return the trainings per minute of ``count`` processes that start at once, parts of trainings counted.

    Raises:
        RuntimeError: a process ended early; with the end of what it said.
    """
    name = next(name for name, known in SIZES.items() if known == sizes)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "routing.bench.gpu.packing", folder, name, device]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        running = [
            subprocess.Popen([*command, str(n)], env=env, stderr=subprocess.PIPE, text=True) for n in range(count)
        ]
        try:
            _wait_for(Path(folder), count, running)
            (Path(folder) / "go").write_text(str(time.time() + 0.2))
            ended = [process.communicate(timeout=START_SECONDS + sizes.seconds) for process in running]
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        for process, (_, said) in zip(running, ended, strict=True):
            if process.returncode:
                raise RuntimeError(f"a training of {count} at once ended with {process.returncode}: {said[-500:]}")
        found = [json.loads((Path(folder) / f"{n}.json").read_text()) for n in range(count)]
    return 60 * sum(one["trainings"] / one["seconds"] for one in found)


def _wait_for(folder: Path, count: int, running: list[subprocess.Popen[str]]) -> None:
    until = time.monotonic() + START_SECONDS
    while len(list(folder.glob("*.ready"))) < count:
        dead = next((process for process in running if process.poll() is not None), None)
        if dead is not None:
            raise RuntimeError(f"a training ended while it started: {dead.communicate()[1][-500:]}")
        if time.monotonic() > until:
            raise RuntimeError(f"{count} trainings were not ready within {START_SECONDS:.0f} s")
        time.sleep(0.02)


@contextmanager
def _multi_process_service() -> Iterator[bool]:
    """Let this process's children share the GPU through a service of their own, where it may be started."""
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ.update(places)
        try:
            yield subprocess.run([control, "-d"], capture_output=True, timeout=20).returncode == 0
        finally:
            subprocess.run([control], input=b"quit\n", capture_output=True, timeout=20)
            for name in places:
                os.environ.pop(name, None)


def train(folder: Path, sizes: Sizes, device: str, number: int) -> None:
    """Train until the time is over, and write how many trainings that were."""
    from routing.bench.gpu.sizes import PHOTOGRAPHS
    from routing.bench.gpu.throughput import epoch
    from routing.data import Split
    from routing.training.seeding import prepare_process

    prepare_process(0, 1)
    host = random_split(PHOTOGRAPHS, sizes.batch * sizes.steps)
    run = epoch(FAMILY, Split(host.images[:].to(device), host.targets.to(device)), sizes, device)
    run()
    (folder / f"{number}.ready").touch()
    while not (folder / "go").exists() or not (begins := (folder / "go").read_text()):
        time.sleep(0.005)
    time.sleep(max(0.0, float(begins) - time.time()))
    started, epochs = time.perf_counter(), 0
    while not epochs or time.perf_counter() - started < sizes.seconds:
        run()
        epochs += 1
    note = {"trainings": epochs / EPOCHS, "seconds": time.perf_counter() - started}
    (folder / f"{number}.json").write_text(json.dumps(note))


if __name__ == "__main__":
    train(Path(sys.argv[1]), SIZES[sys.argv[2]], sys.argv[3], int(sys.argv[4]))
