"""What ``routing train`` does around ``run``: the folder of the run, and words while it works."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from routing.commands.console import Phase
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.record import TrialRecord
from routing.files.results_folder import CHECKPOINT_FILE, COMPUTE_CHECK, CONFIG_FILE, METRICS_FILE
from routing.quantities import count, ordered, split_of


def default_folder(config: RunConfig) -> Path:
    """Return the folder of a run where none is given."""
    return Path("runs") / f"{config.dataset.name}-{config.model.name}-seed{config.seed}"


def train(config: RunConfig, out: Path, say: Callable[[str], None]) -> TrialRecord:
    """Run one configuration in its own folder; an interrupted one goes on after its last epoch.

    Raises:
        InputError: the folder holds a finished run, or another one.
    """
    _check_folder(config, out)
    if (out / CHECKPOINT_FILE).is_file():
        say(f"{out}: going on after the last finished epoch")
    from routing.runner import run

    epochs = config.training.num_epochs
    with Phase("preparing") as phase:
        steps = _Steps(phase, epochs)

        def aside(line: str) -> None:
            phase.stop()
            say(line)

        record = run(config, lambda row: aside(_epoch_line(row, epochs)), out, say=aside, on_step=steps)
    metrics = record.metrics
    say(f"{out}: {_words(metrics)}, {metrics['params']:,.0f} parameters, {len(record.points)} operating points")
    if COMPUTE_CHECK in metrics:
        say(f"multiply-adds: {metrics[COMPUTE_CHECK]}")
    if record.certificate is not None and record.certificate["gap_closed"] is not None:
        certificate = record.certificate
        say(f"router: {certificate['state']}, closes {certificate['gap_closed']:.2f} of the gap from random to full")
    return record


class _Steps:
    """Says how far an epoch is and how fast it goes."""

    def __init__(self, phase: Phase, epochs: int) -> None:
        self._phase, self._epochs = phase, epochs
        self._epoch, self._begun = 0, (0.0, 0)

    def __call__(self, epoch: int, done: int, of: int) -> None:
        now = time.monotonic()
        if epoch != self._epoch:
            self._epoch, self._begun = epoch, (now, done)
        since, first = self._begun
        speed = f", {(done - first) / (now - since):.3g} steps/s" if done > first and now > since else ""
        self._phase.update(f"epoch {epoch}/{self._epochs}: step {done:,} of {of:,}{speed}")


def _check_folder(config: RunConfig, out: Path) -> None:
    if (out / METRICS_FILE).is_file():
        raise InputError(f"{out}: holds a finished run already; give another --out, or remove it")
    if (out / CONFIG_FILE).is_file() and RunConfig.from_yaml(out / CONFIG_FILE) != config:
        raise InputError(f"{out}: holds an unfinished run of another configuration; give another --out, or remove it")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, not a folder")


def _epoch_line(row: dict[str, float], epochs: int) -> str:
    loss = f"loss {row['train_loss']:.4f}  " if "train_loss" in row else ""  # a frozen model has none
    return f"epoch {row['epoch']:.0f}/{epochs}  {loss}{_words(row)}  {row['train_seconds']:.1f} s"


def _words(row: dict[str, float]) -> str:
    names = [name for name in ordered(row) if split_of(name) == "val" and name != "val_loss"]
    words = [f"{name} {row[name]:.4f}" for name in names] + [f"{count(row['flops'])} multiply-adds"]
    if row.get("routing_ratio") is not None:
        words.append(f"routing ratio {row['routing_ratio']:.3f}")
    return "  ".join(words)
