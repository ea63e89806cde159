"""A trial that Ray runs, and what of its last row stays in the ledger when it does not finish."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from routing.config.script import AnyRun
from routing.files.results_folder import VERSION_COLUMNS
from routing.quantities import is_metric, split_of
from search_spaces.search.memory import Curve


@dataclass
class Live:
    """A trial that Ray runs; ``to_the_end``: the scheduler never stops it.

    ``started`` is when its first worker took it, ``attempt_started`` when the present one did; lost ones are replaced.
    ``epochs`` is the last epoch that any worker has finished, ``got_on`` whether the present one finished a new one.
    """

    number: int
    handle: int
    config: AnyRun
    expected_flops: float
    to_the_end: bool
    last: dict[str, Any] = field(default_factory=dict)
    curve: Curve = field(default_factory=dict)
    started: float | None = None
    attempt_started: float | None = None
    epochs: int = 0
    got_on: bool = False

    def is_further(self, result: dict[str, Any]) -> bool:
        """Return whether a row is of an epoch that no worker had finished."""
        return int(result.get("epoch", 0)) > self.epochs

    def note(self, result: dict[str, Any]) -> None:
        """Keep a row."""
        if self.is_further(result):
            self.epochs, self.got_on = int(result["epoch"]), True
        self.last = result


def row_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the history row inside a Ray result."""
    return {k: v for k, v in result.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def node_of(result: dict[str, Any]) -> dict[str, str]:
    """Return where a trial ran: the node's name, and its versions."""
    attrs = {"node": result["hostname"]} if result.get("hostname") else {}
    found = json.loads(result.get("versions") or "{}")
    return attrs | {column: found[name] for name, column in VERSION_COLUMNS.items() if name in found}


def unfinished(last: dict[str, Any]) -> dict[str, Any]:
    """Return how far a trial came that did not finish: epochs, last metrics, training seconds."""
    attrs: dict[str, Any] = {}
    if "epoch" in last:
        attrs["epochs"] = int(last["epoch"])
        attrs["last"] = {k: v for k, v in last.items() if is_metric(k) and split_of(k) != "train" and math.isfinite(v)}
    if "train_seconds" in last:
        attrs["train_seconds"] = last["train_seconds"]
    return attrs


def in_words(names: list[str], values: list[float] | None) -> str:
    """Return the objectives of a trial as a line shows them."""
    return ", ".join(f"{name} {value:.6g}" for name, value in zip(names, values or [], strict=False))
