"""Paths of the runs that workers import, and the tag by which a test finds every process it started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STUDIES = HERE.parent / "search_spaces"
for folder in (HERE, STUDIES):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from loopback_cluster import LoopbackCluster  # noqa: E402
from processes import TAG, tagged, wait_until  # noqa: E402
from small_results import build  # noqa: E402

TINY = {
    "dataset.num_train": 256,
    "dataset.num_val": 96,
    "dataset.num_test": 64,
    "training.num_epochs": 1,
    "training.batch_size": 32,
}


@pytest.fixture(autouse=True)
def _workers_find_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (HERE, STUDIES, ROOT))))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def tag(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Mark every process the test starts; none of them may be left when it ends."""
    value = uuid.uuid4().hex
    monkeypatch.setenv(TAG, value)
    yield value
    wait_until(lambda: not tagged(value), 20)
    left = tagged(value)
    for pid in left:  # not to disturb the tests that follow
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.fixture
def cluster(tag: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackCluster]:
    """A Ray cluster of nodes with addresses of their own, without any node yet."""
    with tempfile.TemporaryDirectory(prefix="rs-") as folder:
        found = LoopbackCluster(Path(folder), tag)
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        try:
            yield found
        finally:
            found.stop()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """A results folder of two real trials; tests change copies of it."""
    return build(tmp_path_factory.mktemp("finished") / "results", TINY)


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "results"))
