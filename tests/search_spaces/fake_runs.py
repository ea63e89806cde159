"""Runs that train nothing: module-level functions that Ray's workers can import."""

from __future__ import annotations

import errno
import math
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from routing.config.run import RunConfig
from routing.errors import TrialFailed
from routing.files.record import OperatingPoint, TrialRecord, write_history
from routing.files.results_folder import METRICS_FILE

Report = Callable[[dict[str, float]], None]
LOG = "runs.log"


def accuracy(config: RunConfig, epoch: int) -> float:
    """Better with a higher threshold, and with every epoch."""
    quality = 1 / (1 + math.exp(-config.dotted()["model.router.threshold_init"]))
    return quality * (1 - 0.5**epoch)


def trivial(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Finish at once; every epoch better than the one before."""
    history = []
    for epoch in range(1, config.training.num_epochs + 1):
        row = {"epoch": epoch, "val_accuracy": accuracy(config, epoch), "flops": 1e6, "train_seconds": 0.0}
        history.append(row)
        write_history(out, history)
        if report is not None:
            report(row)
    return _finish(config, history, out)


def talkative(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Print a line per epoch."""

    def aloud(row: dict[str, float]) -> None:
        print(f"epoch {row['epoch']}")
        if report is not None:
            report(row)

    return trivial(config, aloud, out)


def dated(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Note in ``born`` when this process started, in seconds since the epoch."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    (out / "born").write_text(str(time.time() - up + ticks / os.sysconf("SC_CLK_TCK")))
    return trivial(config, report, out)


def constant(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Give the same result for any model."""
    return _finish(config, [{"epoch": 1, "val_accuracy": 0.5, "flops": 1e6, "train_seconds": 0.0}], out)


def out_of_room(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Find the disk full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))


def logged(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Note every epoch in runs.log beside the trials, and go on after the last one noted in the folder."""
    history = []
    for epoch in range(1, config.training.num_epochs + 1):
        mark = out / f"epoch{epoch}"
        if not mark.exists():
            time.sleep(0.1)
            with (out.parent.parent / LOG).open("a") as file:
                file.write(f"{config.dotted()['model.router.threshold_init']} {epoch}\n")
            mark.touch()
        history.append({"epoch": epoch, "val_accuracy": accuracy(config, epoch), "flops": 1e6, "train_seconds": 0.1})
        write_history(out, history)
        if report is not None:
            report(history[-1])
    return _finish(config, history, out)


def sleepy(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Take half a second per epoch."""

    def slow(row: dict[str, float]) -> None:
        time.sleep(0.5)
        if report is not None:
            report(row)

    return trivial(config, slow, out)


def held(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Go on until there is a file ``go`` beside the trials."""
    while not (out.parent.parent / "go").exists():
        time.sleep(0.05)
    return trivial(config, report, out)


def troubled(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Go wrong in a way that depends on the seed: raise, diverge, lose the worker (often), hang; or finish."""
    trouble = config.seed
    if trouble == 1:
        raise ValueError("no luck\nwith this one")
    if trouble == 2:
        raise TrialFailed("loss is nan in epoch 2")
    if trouble == 3:
        return _finish(config, [{"epoch": 1, "val_accuracy": float("nan"), "flops": 1e6, "train_seconds": 0.0}], out)
    if trouble == 4 and not (out / "died").exists():
        (out / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == 5:
        time.sleep(3600)
    if trouble == 6:
        return trivial(config, partial(_die_once_in, out, report), out)
    return trivial(config, report, out)


def _die_once_in(out: Path, report: Report, row: dict[str, float]) -> None:
    """Lose the worker in every epoch but the first, once each, half a second after the one before was reported."""
    mark = out / f"died{row['epoch']}"
    if row["epoch"] > 1 and not mark.exists():
        mark.touch()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    report(row)


def _finish(config: RunConfig, history: list[dict[str, float]], out: Path) -> TrialRecord:
    last = history[-1]
    metrics = {k: v for k, v in last.items() if k != "epoch"} | {"epochs": last["epoch"], "params": 10}
    point = OperatingPoint("none", None, True, last["flops"], 0.0, 0.0, 10, {"val_accuracy": last["val_accuracy"]})
    record = TrialRecord(config, metrics, [point], history)
    record.write(out)
    assert (out / METRICS_FILE).exists()
    return record
