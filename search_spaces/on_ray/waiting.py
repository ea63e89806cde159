"""Trials that no worker starts: said after a minute, with the reason from Ray's log."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from search_spaces.on_ray.live import Live
from search_spaces.on_ray.private import GLOBAL_NODE
from search_spaces.on_ray.watch import last

_SAID_AFTER = 60.0
_LOG = "raylet.err"
"""Of a node: what its workers said before they could log themselves."""


class Waiting:
    """Notices that Ray has trials and starts none, while no other trial runs."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._said = False

    def look(self, live: Iterable[Live]) -> str | None:
        """Return a line, once, when trials have waited for too long."""
        live = list(live)
        if not live or any(trial.started is not None for trial in live):
            self._since = None
            return None
        now = time.monotonic()
        self._since = self._since or now
        if self._said or now - self._since < _SAID_AFTER:
            return None
        self._said = True
        return f"no worker has started trial {live[0].number} for {_SAID_AFTER:.0f} s: {_reason()}"


def _reason() -> str:
    """Return the last words of Ray's workers on this machine, or what the cluster has free."""
    import ray

    node = GLOBAL_NODE.get()
    said = last(Path(node.get_logs_dir_path()) / _LOG) if node is not None else ""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("[")]
    if lines:
        return f"its processes say: {lines[-1][:200]}"
    free = {name: n for name, n in ray.available_resources().items() if name in ("CPU", "GPU")}
    return f"the cluster has free {', '.join(f'{amount:g} {name}' for name, amount in free.items()) or 'no CPU'}"
