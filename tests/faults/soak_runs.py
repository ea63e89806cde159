"""Short runs with a fault drawn for each setting and attempt; imported by Ray's workers."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_runs import trivial

from routing.config.run import RunConfig
from routing.errors import TrialFailed
from routing.files.record import TrialRecord
from routing.files.results_folder import METRICS_FILE

SHARES = {"killed": 0.05, "raised": 0.06, "diverged": 0.06, "hung": 0.01, "garbage": 0.04}
"""How often each fault happens; the rest of the attempts are whole."""


def short(config: RunConfig, report: Callable[[dict[str, Any]], None] | None, out: Path) -> TrialRecord:
    """Finish in a fifth of a second, or go wrong."""
    attempt = len(list(out.glob("attempt*")))
    (out / f"attempt{attempt}").touch()
    draw = random.Random(f"{config.seed} {attempt}").random()
    fault = next((name for name, share in _limits() if draw < share), "none")
    time.sleep(0.2)
    if fault == "killed":
        (out / f".{METRICS_FILE}.abcd1234").write_text("killed in the middle of writing a fi")
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "raised":
        raise ValueError("a fault of the soak")
    if fault == "diverged":
        raise TrialFailed("loss is nan in epoch 1")
    if fault == "hung":
        time.sleep(3600)
    if fault == "garbage":
        (out / METRICS_FILE).write_text("{half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    return trivial(config, report, out)


def _limits() -> list[tuple[str, float]]:
    total, limits = 0.0, []
    for name, share in SHARES.items():
        total += share
        limits.append((name, total))
    return limits
