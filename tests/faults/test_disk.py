"""A results folder on a disk that is full or read-only, mounted in a namespace of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from processes import DRIVER
from small_studies import sweep_values


def in_namespace(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where it may mount; skipped where the kernel does not allow that."""
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    if probe.returncode != 0:
        pytest.skip("no user namespaces here")
    command = ["unshare", "-rm", "bash", "-c", script, "bash", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


FULL = """
python=$1 driver=$2 study=$3 disk=$4 copy=$5
mount -t tmpfs -o size=400k none "$disk" || exit 99
"$python" -c "$driver" "$study" "$disk/out" faulty_runs:spoilt '{"concurrency": 1}'
echo "exit $?"
mount -o remount,size=64m "$disk"
"$python" -c "$driver" "$study" "$disk/out" faulty_runs:spoilt '{"concurrency": 1}'
echo "exit $?"
cp -r "$disk/out" "$copy"
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_sweep(tmp_path: Path, tiny: dict[str, Any], tag: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    values = sweep_values(base={**tiny, "training.num_epochs": 2}, trials=6)
    done = in_namespace(FULL, sys.executable, DRIVER, json.dumps(values), str(disk), str(tmp_path / "copy"))
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split("exit 1\n")
    assert "the disk is full; make room, then go on with --resume" in before
    assert after.endswith("exit 0\n")
    assert "Traceback" not in done.stdout
    rows = pd.read_csv(tmp_path / "copy" / "trials.csv")
    complete = rows[rows["state"] == "COMPLETE"]
    assert len(complete) == 6
    assert set(rows["reason"].dropna()) <= {"interrupted"}
    assert complete["model.router.threshold_init"].is_unique
    assert not [path for path in (tmp_path / "copy").rglob(".*") if path.is_file()]


READ_ONLY = """
python=$1 driver=$2 study=$3 out=$4
mount --bind "$out" "$out" && mount -o remount,ro,bind "$out" || exit 99
"$python" -c "$driver" "$study" "$out" faulty_runs:spoilt '{"concurrency": 1}'
echo "exit $?"
"$python" -m routing analyze "$out"
echo "exit $?"
"""


def test_a_read_only_folder_is_named_in_one_line(results: Path) -> None:
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    done = in_namespace(READ_ONLY, sys.executable, DRIVER, json.dumps(sweep_values()), str(results))
    assert done.stdout == f"{results} cannot be written to: Read-only file system\nexit 2\nexit 1\n", done.stderr
    assert done.stderr.count("\n") == 1
    assert "Read-only file system" in done.stderr
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before
