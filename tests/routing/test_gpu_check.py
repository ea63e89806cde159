"""``make gpu-check`` on the CPU with tiny sizes, on a machine that has nothing of Ray or Optuna."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from routing.bench.gpu import check, latency, packing, stacked, throughput
from routing.bench.gpu.sizes import TINY
from routing.bench.tables import markdown

ROOT = Path(__file__).parents[2]
NOT_THERE = ("ray", "optuna", "fvcore", "moocore", "plotly", "tensorboard", "lightning", "open_clip", "transformers")


@pytest.mark.parametrize("name", TINY.families)
def test_a_family_is_trained_and_timed(name: str) -> None:
    rows = [*throughput.compare(name, TINY, "cpu"), *latency.compare(name, 2, TINY, "cpu")]
    assert rows[0]["images_per_second"] > 0
    assert rows[0]["ratio"] == 1
    assert 0 < rows[-1]["ms_p50"] <= rows[-1]["ms_p95"]


def test_a_stack_of_seeds_takes_the_step_of_each() -> None:
    one_by_one, at_once = stacked.steps(2, 3, "cpu")
    for _ in range(2):
        torch.testing.assert_close(at_once(), one_by_one(), rtol=1e-4, atol=1e-6)
    assert stacked.compare(2, TINY, "cpu")["ratio"] > 0


def test_a_part_that_fails_or_is_late_does_not_take_the_others_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MODULE", "routing.bench.no_such_module")
    monkeypatch.setitem(check.SECONDS, "tiny", 60)
    assert not check.check("tiny", "cpu", tmp_path / "gpu.json", tmp_path / "gpu.md", ["routing", "pruning"])
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [part["ended"].split(":")[0] for part in parts] == ["exit code 1"] * 2
    monkeypatch.setitem(check.SECONDS, "tiny", -1)
    check.check("tiny", "cpu", tmp_path / "gpu.json", tmp_path / "gpu.md", ["routing"])
    assert "left out: no time left" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_is_stopped_leaves_no_process_behind(tmp_path: Path) -> None:
    child = f"import time, pathlib; time.sleep(5); pathlib.Path({str(tmp_path / 'alive')!r}).touch()"
    part = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    started = time.monotonic()
    assert check._run([sys.executable, "-c", part], started + 2) == "stopped after 2 s"
    assert time.monotonic() - started < 4
    time.sleep(max(0.0, started + 8 - time.monotonic()))
    assert not (tmp_path / "alive").exists()


def test_a_service_that_serves_nobody_leaves_the_figures_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The multi-process service may start in a container and then refuse every client."""
    places: list[bool] = []

    def rate(count: int, sizes: object, device: str) -> float:
        if places:
            raise RuntimeError("a training ended while it started: MPS server is not ready")
        return 60.0 * count

    @contextmanager
    def service() -> Iterator[bool]:
        places.append(True)
        yield True

    monkeypatch.setattr(packing, "together", rate)
    monkeypatch.setattr(packing, "_multi_process_service", service)
    (table,) = packing.bench(TINY, "cuda")
    *measured, failed = table.rows
    assert [row["ratio"] for row in measured] == [float(count) for count in TINY.processes]
    assert failed["failed"] == "a training ended while it started: MPS server is not ready"
    assert failed["failed"] in markdown(table)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--quick"]) == 2
    assert "no GPU that torch can use" in capsys.readouterr().out


@pytest.mark.slow
def test_the_whole_command_on_a_bare_machine(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n\n\nclass No:\n    def find_spec(self, name, *_):\n"
        f"        if name.split('.')[0] in {NOT_THERE}:\n            raise ModuleNotFoundError(name)\n\n\n"
        "sys.meta_path.insert(0, No())\n"
    )
    words = f"--tiny --device cpu --out {tmp_path}/gpu.json --markdown {tmp_path}/gpu.md"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(["make", "gpu-check", f"ARGS={words}"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {part["part"]: part["ended"] for part in found["parts"]} == dict.fromkeys(["tests", *check.PARTS], "done")
    assert len(found["tables"]) == len(check.PARTS)
    assert "### latency of inference" in (tmp_path / "gpu.md").read_text()
