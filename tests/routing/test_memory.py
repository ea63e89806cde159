"""What a process does with memory it has freed."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from routing.training.memory import keep_freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told what to keep")


def test_freed_memory_is_not_faulted_in_again() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16_000_000)  # 64 MB: 16,000 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    found = [faults() for _ in range(30)]  # the first rounds make room
    assert max(found[-3:]) < 100


def held_mb() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon"))


def run_in_threads(trials: int) -> list[float]:
    """Return the MB held after each of several runs, in threads of their own that live a little beside the next one."""
    from routing.trainable import _reset_process

    keep_freed_memory()
    kept, held = [], []

    def work() -> None:
        batches = [np.ones(250_000) for _ in range(50)]  # 50 of 2 MB
        kept.append(np.ones(10))  # a little that stays, as history and metrics do
        del batches

    for _ in range(trials):
        threads = [Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _reset_process()
        held.append(held_mb())
    return held


def test_a_worker_does_not_grow_with_its_trials() -> None:
    code = "from test_memory import run_in_threads; print(*run_in_threads(12))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent, timeout=100
    )
    held = [float(value) for value in done.stdout.split()]
    assert held[-1] < held[0] + 50, held
