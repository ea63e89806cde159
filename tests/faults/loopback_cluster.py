"""A Ray cluster on this machine whose nodes are processes of their own, each with an address of its own: 127.0.0.x."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

from processes import TAG, tagged

_OBJECT_STORE_BYTES = 2**27


class LoopbackCluster:
    """Nodes started with ``ray start``; every process asks for the token.

    Args:
        folder: for the files of the nodes; short, since sockets lie in it.
        tag: mark of all processes.
    """

    def __init__(self, folder: Path, tag: str) -> None:
        self.folder, self.tag = folder, tag
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "3",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "4",
        }
        self.address = ""
        self._heads = 0

    def start_head(self) -> None:
        """Start a head without CPUs: it coordinates, the workers work."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._heads += 1
            ip = f"127.0.1.{self._heads}"
            self.address = f"{ip}:{free.getsockname()[1]}"
        port = self.address.rpartition(":")[2]
        self._start(ip, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")

    def start_worker(self, number: int, *arguments: str, blind_to: Path | None = None) -> None:
        """Start a node that joins the head; it sees an empty folder of its own in place of ``blind_to``."""
        ip = f"127.0.{self._heads + 1}.{number}"
        self._start(ip, f"--address={self.address}", *arguments, blind_to=blind_to)

    def kill_head(self) -> None:
        """Kill every process of the newest head at once."""
        self._kill(f"127.0.1.{self._heads}")

    def kill_worker(self, number: int) -> None:
        """Kill every process of a worker node of the newest head at once."""
        self._kill(f"127.0.{self._heads + 1}.{number}")

    def stop(self) -> None:
        """Kill what is left of all nodes."""
        self._kill("127.0.")

    def _start(self, ip: str, *arguments: str, blind_to: Path | None = None) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--node-ip-address={ip}", *arguments]
        command += [f"--temp-dir={self.folder}/{ip}", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        command += ["--include-log-monitor=false", "--min-worker-port=0", "--max-worker-port=0"]
        if blind_to is not None:
            command = [
                "unshare",
                "--mount",
                "sh",
                "-c",
                'mount -t tmpfs none "$0" && exec "$@"',
                str(blind_to),
                *command,
            ]
        environment = {**self.environment, TAG: f"{self.tag}-{ip}-"}
        with (self.folder / f"{ip}.log").open("w") as log:
            done = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=120, check=False)
        assert done.returncode == 0, (self.folder / f"{ip}.log").read_text()

    def _kill(self, ip: str) -> None:
        for _ in range(3):  # a process may be starting another one just now
            for pid in tagged(f"{self.tag}-{ip}"):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
