"""The benchmark of the data's way: every part in its row, memory that is really a process's own."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from routing.bench import data as bench

needs_proc = pytest.mark.skipif(not bench.SMAPS.exists(), reason="reads /proc")


@pytest.fixture(autouse=True)
def _cache() -> Iterator[None]:
    with bench.temporary_cache():
        yield


def test_shares_of_a_training_step() -> None:
    rows = bench.step_shares("attention_routing", count=128, rounds=2)
    pieces = ["selection and normalisation", "augmentation", "input pipeline: these together"]
    assert [row["part"] for row in rows] == [*pieces, "crop of every patch, by the model", "input pipeline and crop"]
    for row in rows:
        assert set(row) == set(bench.STEP_COLUMNS)
        assert 0 < row["ratio"] < 1


def test_the_cache_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTING_CACHE", "before")
    with bench.temporary_cache():
        folder = os.environ["ROUTING_CACHE"]
        assert len(bench.training_split(10)) == 10
        assert os.listdir(folder)
    assert not os.path.exists(folder)
    assert os.environ["ROUTING_CACHE"] == "before"


@needs_proc
def test_memory_of_its_own() -> None:
    before = bench.private_megabytes()
    with mmap.mmap(-1, 40_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for offset in range(0, len(memory), mmap.PAGESIZE):
            memory[offset] = 1
        assert bench.private_megabytes() - before == pytest.approx(40, abs=8)


@needs_proc
def test_memory_counts_rounds_not_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_two_trials", lambda count, way: [5.0, 7.0])
    for row in bench.memory_per_trial(10, rounds=3):
        assert (row["n"], row["private_megabytes"]) == (3, 7.0)


@needs_proc
@pytest.mark.slow
def test_two_trials_share_mapped_data() -> None:
    mapped, own = bench.memory_per_trial(20_000, rounds=1)
    assert (mapped["way"], own["way"]) == ("mapped", "own copy")
    assert mapped["data_megabytes"] == pytest.approx(20_000 * 3072 / 1e6)
    assert mapped["private_megabytes"] < 20
    assert own["private_megabytes"] > 55
