"""Is Ray still there? Its processes can die under a sweep, and would then take the driver with them, without a hint."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from routing.files.atomic import write_text
from search_spaces.on_ray.private import GLOBAL_NODE

_LOOKS_EVERY = 0.25
_SILENT_SECONDS = 10.0
"""How long the head of a cluster may refuse connections; Ray ends its drivers after 60 s."""
_CLEAN_END_SECONDS = 20.0
_LOG_LINES = 50
_HEAD, _NODE = "gcs_server", "raylet"


@contextmanager
def watched(log: Path, lost: Callable[[str], None], say: Callable[[str], None]) -> Iterator[None]:
    """Watch Ray from a thread of its own while a sweep runs.

    A driver outlives the head by a minute, which is enough for a clean end; without its node's raylet it is ended by
    Ray within a second, so that all that can be done is to say so.

    Args:
        log: where the last lines of Ray's own logs go when it dies.
        lost: called when the head has died; the sweep then ends by itself.
        say: called with the reason in one line when it cannot.
    """
    over = threading.Event()
    threading.Thread(target=_watch, args=(over, log, lost, say), daemon=True, name="watch").start()
    try:
        yield
    finally:
        over.set()


def _watch(over: threading.Event, log: Path, lost: Callable[[str], None], say: Callable[[str], None]) -> None:
    node = GLOBAL_NODE.get()
    if node is None:
        return
    dead: Callable[[], str | None] = _OfOurs(node) if _HEAD in node.all_processes else _OfOthers(node.gcs_address)
    while (name := dead()) is None:
        if over.wait(_LOOKS_EVERY):
            return
    reason = f"Ray has died ({name}){_kept(log, Path(node.get_logs_dir_path()))}"
    if name == _HEAD:
        lost(reason)
        time.sleep(_CLEAN_END_SECONDS)  # the process has ended by then, unless Ray hangs
    say(reason)
    sys.stderr.flush()
    os._exit(1)


class _OfOurs:
    """The processes of a private cluster."""

    def __init__(self, node: Any) -> None:
        self._node = node

    def __call__(self) -> str | None:
        """Return the name of one that has ended."""
        for name in (_NODE, _HEAD):
            if any(info.process.poll() is not None for info in self._node.all_processes.get(name, ())):
                return name
        return None


class _OfOthers:
    """The head of a cluster that was joined, at ``host:port``."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._place = (host, int(port))
        self._answered = time.monotonic()
        self._next = 0.0

    def __call__(self) -> str | None:
        """Return its name when it has not answered for too long."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1.0
            with suppress(OSError), socket.create_connection(self._place, timeout=1.0):
                self._answered = time.monotonic()
        return _HEAD if time.monotonic() - self._answered > _SILENT_SECONDS else None


def _kept(log: Path, folder: Path) -> str:
    """Write the ends of Ray's own logs, where this machine has them; return where, in words."""
    parts = [f"{path}\n{tail}" for name in (_HEAD, _NODE) for path in folder.glob(f"{name}.*") if (tail := last(path))]
    if not parts:
        return ""
    with suppress(OSError):
        write_text(log, "\n".join(parts))
        return f"; the ends of its logs are in {log}"
    return ""


def last(path: Path, lines: int = _LOG_LINES) -> str:
    """Return the last lines of a log, empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 200 * lines, 0))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
