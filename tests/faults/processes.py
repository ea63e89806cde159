"""Drivers in processes of their own, and what /proc says of the processes and sockets of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TAG = "ROUTING_TEST_TAG"
_LISTEN = "0A"

DRIVER = """
import json, sys
from routing.errors import RoutingError
from search_spaces import sweep
from search_spaces.study.load import parse_study
try:
    sweep(parse_study(json.loads(sys.argv[1])), sys.argv[2], run=sys.argv[3], resume=True, **json.loads(sys.argv[4]))
except RoutingError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def start_driver(values: dict[str, Any], out: Path | str, run: str, **options: Any) -> subprocess.Popen[str]:
    """Start (or resume) a sweep in a process and process group of its own."""
    arguments = [json.dumps(values), str(out), run, json.dumps(options)]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(condition: Callable[[], Any], seconds: float) -> bool:
    """Return whether a condition became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def tagged(value: str) -> dict[int, str]:
    """Return the living processes (id -> command) that inherited a tag, apart from this one."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if f"{TAG}={value}".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
            except OSError:
                continue  # ended meanwhile, or of another user
    return found


def listening(pids: list[int]) -> set[str]:
    """Return the addresses, as /proc writes them in hex, on which processes accept TCP connections."""
    inodes = set()
    for pid in pids:
        try:
            links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                addresses.add(fields[1].rpartition(":")[0])
    return addresses


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
"""127.0.0.1, ::1 and ::ffff:127.0.0.1 as /proc writes them."""
