"""What a process is prepared with before a run."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from routing.training.seeding import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_freed_memory_is_not_faulted_in_again() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16_000_000)  # 64 MB: 16,000 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    found = [faults() for _ in range(30)]  # the first rounds make room
    assert max(found[-3:]) < 100
