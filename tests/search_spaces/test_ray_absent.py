"""Surroundings in which Ray does not start, does not answer, or starts nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from routing.config.run import RunConfig
from routing.files.scratch import scratch_folder
from search_spaces.on_ray.live import Live
from search_spaces.on_ray.session import _LONGEST_SOCKET
from search_spaces.on_ray.waiting import Waiting
from search_spaces.on_ray.watch import last


@pytest.mark.parametrize(("length", "is_usual"), [(20, True), (60, False)])
def test_a_long_temporary_folder_leaves_room_for_rays_sockets(
    length: int, is_usual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Path("/tmp") / f"rs{os.getpid()}".ljust(length - len("/tmp/"), "x")
    usual.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(usual))
    with scratch_folder(socket_name=len(_LONGEST_SOCKET)) as scratch:
        assert len(str(scratch / _LONGEST_SOCKET)) <= 107
        assert (scratch.parent == usual) == is_usual
        assert scratch.stat().st_mode & 0o777 == 0o700
    with scratch_folder() as scratch:
        assert scratch.parent == usual
    usual.rmdir()


def test_a_machine_without_a_network_interface_is_one_line() -> None:
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test have a network of its own")
    program = "from search_spaces.on_ray.reach import check_loopback; check_loopback()"
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert "Ray's processes talk over 127.0.0.1, which does not answer here (Network is unreachable)" in done.stderr


def test_a_trial_that_no_worker_starts_is_said_once_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raylet.err").write_text("[2026] dead\nbash: line 1: /home/my: No such file\n[2026] dead\n")
    monkeypatch.setattr("ray._private.worker._global_node", SimpleNamespace(get_logs_dir_path=lambda: str(tmp_path)))
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("search_spaces.on_ray.waiting.time", SimpleNamespace(monotonic=lambda: clock.now))
    waiting, runs, waits = Waiting(), *(Live(number, 0, RunConfig(), 1.0, False) for number in (3, 7))
    runs.started = 1.0

    def looked(at: float, *live: Live) -> str | None:
        clock.now = at
        return waiting.look(live)

    assert [looked(1, waits), looked(50, runs, waits), looked(70, waits), looked(120, waits)] == [None] * 4
    assert looked(131, waits) == (
        "no worker has started trial 7 for 60 s: its processes say: bash: line 1: /home/my: No such file"
    )
    assert looked(300, waits) is None


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert last(log).splitlines() == [f"line {number}" for number in range(950, 1000)]
    assert last(tmp_path / "none") == ""
