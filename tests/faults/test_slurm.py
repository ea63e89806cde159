"""docs/cluster/slurm.sh under a real Slurm: a controller and two nodes on this machine, each a ``slurmd``."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from processes import wait_until

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "cluster" / "slurm.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "openssl")
TRIALS, NODES = 40, ("n1", "n2")

CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
FirstJobId={first_job}
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n1} CPUs=1
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n2} CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
"""

TRAIN = """
import os, time

def train(config, report, out):
    steps = out / "steps"  # a line for each step that is over, also the mark to go on from
    done = len(steps.read_text().splitlines()) if steps.exists() else 0
    for step in range(done + 1, 7):
        time.sleep(float(os.environ["STEP_SECONDS"]))
        with steps.open("a") as file:
            file.write(f"{step} {os.environ['SLURMD_NODENAME']}\\n")
        report(step, error=config["x"] / step)
    return {"error": config["x"] / 6, "size": 10.0 + config["x"]}
"""

STUDY = {
    "kind": "sweep",
    "name": "slow",
    "run": "slow_train:train",
    "steps": 6,
    "space": {"x": {"float": [0.1, 1.0]}},
    "objectives": [
        {"metric": "error", "goal": "minimize", "reference": 1.0},
        {"metric": "size", "goal": "minimize", "reference": 20.0},
    ],
    "sampler": {"name": "random", "seed": 3},
    "scheduler": {"name": "none"},
    "trials": TRIALS,
}


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a Slurm of two nodes; its commands find it."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"Slurm is not installed: no {', '.join(missing)}" if missing else "Slurm's daemons run as root")
    folder = Path(tempfile.mkdtemp(prefix="rs-"))  # short: munge puts a socket there
    for name in ("state", *NODES):
        (folder / name).mkdir()
    ports = dict(zip(("controller", *NODES), free_ports(3), strict=True))
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, first_job=os.getpid(), **ports))
    monkeypatch.setenv("SLURM_CONF", str(config))
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    files = {"key-file": "munge.key", "socket": "munge", "pid-file": "munged.pid", "log-file": "munged.log"}
    files["seed-file"] = "munged.seed"
    try:
        start("munged", "--force", *(f"--{option}={folder / name}" for option, name in files.items()))
        start("slurmctld", "-f", str(config))
        for node in NODES:
            start("slurmd", "-f", str(config), "-N", node)
        assert wait_until(lambda: asked("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2", 60), logs(folder)
        yield folder
    finally:
        subprocess.run(["scancel", "--user=root"], capture_output=True, check=False)
        wait_until(lambda: not asked("squeue", "-h"), 60)
        for name in (*NODES, "controller", "munged"):
            stop(folder / f"{name}.pid")
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def stop(pid_file: Path) -> None:
    if pid_file.exists() and pid_file.read_text().strip():
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
        wait_until(lambda: not pid_file.exists(), 20)


def asked(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def logs(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))


@pytest.fixture
def submitted(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], dict[str, Any]]:
    """Submits with a time limit in minutes and the seconds of a step; returns how the job ended, what it wrote."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name, module in {"ray": "ray.scripts.scripts", "routing": "routing"}.items():
        (programs / name).write_text(f'#!/bin/bash\nexec "{sys.executable}" -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    (tmp_path / "slow_train.py").write_text(TRAIN)
    (tmp_path / "slow.yaml").write_text(yaml.safe_dump(STUDY))
    monkeypatch.setenv("VENV", str(programs.parent))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")

    def submit(minutes: int, step_seconds: float) -> dict[str, Any]:
        monkeypatch.setenv("STEP_SECONDS", str(step_seconds))
        output = tmp_path / f"limit{minutes}.txt"
        limits = ["--nodes=2", "--cpus-per-task=1", f"--time={minutes}", "--signal=B:TERM@1", f"--output={output}"]
        job = asked("sbatch", "--parsable", *limits, str(SCRIPT), str(tmp_path / "slow.yaml"), str(tmp_path / "out"))
        assert job.strip().isdigit(), logs(slurm)
        assert wait_until(lambda: not asked("squeue", "-h", "-j", job.strip()), 60 * minutes + 120), output.read_text()
        shown = asked("scontrol", "show", "job", job.strip())
        shutil.rmtree(f"/tmp/ray-{job.strip()}", ignore_errors=True)
        return {"text": output.read_text(), "shown": shown}

    return submit


@pytest.mark.slow
def test_a_job_killed_at_its_time_limit_goes_on_in_the_next(
    tmp_path: Path, submitted: Callable[[int, float], dict[str, Any]]
) -> None:
    first = submitted(2, 1.5)  # 40 trials of 9 s on two CPUs: more than the limit
    assert "JobState=COMPLETED" not in first["shown"], first["text"]
    assert "finished trials are kept in" in first["text"], first["text"]
    finished = {path: path.read_bytes() for path in tmp_path.glob("out/trials/*/metrics.json")}
    assert 0 < len(finished) < TRIALS
    second = submitted(6, 0.1)
    assert "JobState=COMPLETED" in second["shown"], second["text"]
    rows = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert rows["state"].value_counts()["COMPLETE"] == TRIALS
    assert all(path.read_bytes() == content for path, content in finished.items())
    steps = [path.read_text().splitlines() for path in tmp_path.glob("out/trials/*/out/steps")]
    assert len(steps) == TRIALS
    assert all([int(line.split()[0]) for line in each] == [1, 2, 3, 4, 5, 6] for each in steps), "a step was repeated"
    assert {line.split()[1] for each in steps for line in each} == set(NODES)
