"""Real trainings of the embedded digits, each spoilt in a way that its seed names; imported by Ray's workers."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from routing.config.run import RunConfig
from routing.files.record import TrialRecord
from routing.files.results_folder import CHECKPOINT_FILE
from routing.runner import run, train_epoch

EPOCHS_LOG = "epochs.log"
NODES_LOG = "nodes.log"
Report = Callable[[dict[str, Any]], None]

WHOLE, BUILD, EPOCH_1, EPOCH_3, NAN, KILLED, TRUNCATED, MEMORY, CLOCK = range(9)
"""The faults; the seed of a run names its own."""


def spoilt(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Train as ``routing.runner.run`` does, with the fault of this seed."""
    with _FAULTS.get(config.seed, _logged_only)(config.seed, out):
        return run(config, report, out)


def epochs_begun(results: Path, seed: int) -> list[int]:
    """Return the epochs that were begun under a seed, in order, over all attempts."""
    path = results / EPOCHS_LOG
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [int(epoch) for found, epoch in rows if int(found) == seed]


def noted(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Train nothing, and note on which node and in which folder."""
    import ray
    from fake_runs import trivial

    with (out / NODES_LOG).open("a") as file:
        file.write(f"{ray.util.get_node_ip_address()} {out}\n")
    return trivial(config, report, out)


def _at_epoch(seed: int, out: Path, act: Callable[[int, Any], None], after: Callable[[int], None] | None = None) -> Any:
    """Return a patch that notes every epoch, calls ``act`` before it is trained and ``after`` when it has been."""

    def spoilt_epoch(model: torch.nn.Module, *arguments: Any, **options: Any) -> dict[str, float]:
        epoch = options["turn"].epoch
        with (out.parent.parent / EPOCHS_LOG).open("a") as file:
            file.write(f"{seed} {epoch}\n")
        act(epoch, model)
        losses = train_epoch(model, *arguments, **options)
        if after is not None:
            after(epoch)
        return losses

    return patch("routing.runner.train_epoch", spoilt_epoch)


def _logged_only(seed: int, out: Path) -> Any:
    return _at_epoch(seed, out, lambda epoch, model: None)


def _no_build(seed: int, out: Path) -> Any:
    return patch("routing.runner.build_model", side_effect=RuntimeError("the model cannot be built"))


def _raises_in(wrong: int) -> Callable[[int, Path], Any]:
    def act(epoch: int, model: Any) -> None:
        if epoch == wrong:
            raise RuntimeError(f"broken in epoch {epoch}")

    return lambda seed, out: _at_epoch(seed, out, act)


def _diverges(seed: int, out: Path) -> Any:
    def act(epoch: int, model: torch.nn.Module) -> None:
        if epoch == 2:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))

    return _at_epoch(seed, out, act)


def _killed(truncate: bool) -> Callable[[int, Path], Any]:
    def fault(seed: int, out: Path) -> Any:
        def after(epoch: int) -> None:
            """Epoch 2 has been trained and is not saved yet: what a kill in the middle of it would lose."""
            if epoch == 2 and not (out / "killed").exists():
                (out / "killed").touch()
                if truncate:
                    checkpoint = out / CHECKPOINT_FILE
                    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        return _at_epoch(seed, out, lambda epoch, model: None, after)

    return fault


@contextmanager
def _out_of_memory(seed: int, out: Path) -> Iterator[None]:
    """Ask for 64 GiB under a limit of 1 GiB above what the process has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

    def act(epoch: int, model: Any) -> None:
        if epoch == 2:
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
            np.ones(2**33)

    try:
        with _at_epoch(seed, out, act):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _clock_back(seed: int, out: Path) -> Iterator[None]:
    """Set the worker's clock back by an hour in epoch 2."""
    real, back = time.time, [0.0]

    def act(epoch: int, model: Any) -> None:
        back[0] = 3600.0 if epoch >= 2 else 0.0

    with patch("time.time", lambda: real() - back[0]), _at_epoch(seed, out, act):
        yield


_FAULTS: dict[int, Callable[[int, Path], Any]] = {
    BUILD: _no_build,
    EPOCH_1: _raises_in(1),
    EPOCH_3: _raises_in(3),
    NAN: _diverges,
    KILLED: _killed(truncate=False),
    TRUNCATED: _killed(truncate=True),
    MEMORY: _out_of_memory,
    CLOCK: _clock_back,
}


def slow(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Train with half a second before every epoch, and note where: node, and the GPUs it was given."""
    import ray

    def act(epoch: int, model: Any) -> None:
        time.sleep(0.5)

    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    with (out / NODES_LOG).open("a") as file:
        file.write(f"{ray.util.get_node_ip_address()} {gpus}\n")
    with _at_epoch(config.seed, out, act):
        return run(config, report, out)


TICKETS = "tickets"


def tickets(results: Path, count: int) -> None:
    """Allow ``count`` more runs of ``gated`` to end."""
    folder = results / TICKETS
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{time.time_ns()}-{number}").touch()


def gated(config: RunConfig, report: Report | None, out: Path) -> TrialRecord:
    """Train; stand before epoch 2 until there is a ticket, and use it up; note on which node."""
    import ray

    def act(epoch: int, model: Any) -> None:
        while epoch == 2 and not _took_a_ticket(out.parent.parent / TICKETS):
            time.sleep(0.05)

    with (out / NODES_LOG).open("a") as file:
        file.write(f"{ray.util.get_node_ip_address()}\n")
    with _at_epoch(config.seed, out, act):
        return run(config, report, out)


def _took_a_ticket(folder: Path) -> bool:
    for ticket in folder.glob("*"):
        try:
            ticket.unlink()
        except FileNotFoundError:
            continue  # another run was faster
        return True
    return False
