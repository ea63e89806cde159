"""``LedgerSearch``: Ray Tune's view of the ledger. Proposes ahead in a thread, starts and ends trials in the ledger.

It is an ``OptunaSearch`` over the storage of the ledger with its own ask and tell: Ray's wrapper asks only once a
worker is idle, tells stopped trials as complete, and leaves a trial RUNNING forever when a value is NaN.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from routing.config.script import AnyRun
from routing.files.mirror import Mirror
from routing.files.results_folder import METRICS_FILE, TRIALS_FOLDER, trial_folder
from routing.quantities import is_metric, split_of, why_impossible
from search_spaces.ledger.folder import holds_run, set_aside
from search_spaces.ledger.ledger import ENQUEUED, EXPECTED_FLOPS, PROPOSAL, REASON, RETRY_OF, Ledger
from search_spaces.on_ray.asking import Asker, Check, Ready
from search_spaces.search.memory import Curve
from search_spaces.search.proposer import Proposer
from search_spaces.search.rules import Verdict


@dataclass
class Live:
    """A trial that Ray runs; ``to_the_end``: the scheduler never stops it.

    ``started`` is when its first worker took it, ``attempt_started`` when the present one did; lost ones are replaced.
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


class LedgerSearch(OptunaSearch):
    """Hands trials to Ray Tune and writes their start and end to the ledger.

    Args:
        ledger: where trials are written.
        proposer: chooses settings; the ledger's past has been replayed into it.
        out: results folder.
        concurrency: trials that may run at once.
        check: setting -> its run and expected FLOPs, or the reason why it may not run.
        run: ``module:function`` that trains a run.
        limit: trials to start.
        rungs: epochs of a run -> those after which it may be stopped.
        on_disk_full: called when the disk is full for a trial's files; it is left RUNNING, to be queued again.
        on_finished: called with (number, state, words, final content or None) after each end.

    ``failure`` is the error that kept the end of a trial from being written; the driver then stops.
    """

    def __init__(
        self,
        ledger: Ledger,
        proposer: Proposer,
        out: Path,
        concurrency: int,
        check: Check,
        run: str,
        on_finished: Callable[[int, TrialState, str, dict[str, Any] | None], None],
        on_disk_full: Callable[[], None],
        limit: int,
        rungs: Callable[[int], list[int]],
        mirror: Mirror | None = None,
    ) -> None:
        goals = [direction.name.lower()[:3] for direction in ledger.study.directions]
        super().__init__(
            space=proposer.space.sample,
            metric=list(ledger.study.metric_names or []),
            mode=goals,
            sampler=ledger.study.sampler,
            storage=ledger.storage,
            study_name=ledger.name,
        )
        self.ledger, self.proposer, self.out, self.run = ledger, proposer, out, run
        self.on_finished, self.on_disk_full = on_finished, on_disk_full
        self.concurrency, self.mirror, self.rungs = concurrency, mirror, rungs
        self.live: dict[str, Live] = {}
        self.stopped: dict[str, Verdict] = {}
        self.errors: dict[str, str] = {}
        self.failure: Exception | None = None
        self._asker = Asker(ledger, proposer, check, limit, ahead=concurrency)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Tell Ray that this searcher limits concurrency itself."""
        self.concurrency = max_concurrent
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial for Ray, None while there is none to start now, FINISHED when there will be none."""
        while True:
            if self._asker.is_over():
                return Searcher.FINISHED
            if len(self.live) >= self.concurrency:
                return None
            ready = self._asker.take(wait=not self.live)
            if ready is None:
                return Searcher.FINISHED if self._asker.is_over() else None
            trial = self._start(trial_id, ready)
            if trial is not None:
                return trial

    def _start(self, trial_id: str, ready: Ready) -> dict[str, Any] | None:
        """Write the trial as RUNNING and prepare its folder; a refused one is written as PRUNED, and None returned."""
        proposal = ready.proposal
        attrs: dict[str, Any] = dict(ready.waiting.user_attrs) if ready.waiting is not None else {}
        if proposal.index is not None:
            attrs[PROPOSAL] = proposal.index
        if ready.config is not None and ready.expected_flops:
            attrs[EXPECTED_FLOPS] = ready.expected_flops
        labels = self.proposer.space.labels(proposal.values) if self.proposer.samples else {}
        distributions = self.proposer.space.distributions()
        number = self.ledger.start(labels, {n: distributions[n] for n in labels}, attrs, ready.waiting)
        if ready.config is None:
            self._end(number, proposal.handle, TrialState.PRUNED, None, {REASON: f"refused: {proposal.refused}"}, None)
            return None
        folder = trial_folder(self.out, number)
        self._prepare(folder, attrs.get(RETRY_OF), ready.config)
        declared = (
            self.proposer.samples and ENQUEUED in attrs
        )  # an ablation's arms are enqueued too, but may be stopped
        self.live[trial_id] = Live(number, proposal.handle, ready.config, ready.expected_flops, declared)
        config = json.dumps(ready.config.model_dump(mode="json"))
        pauses = [] if declared else self.rungs(ready.config.num_epochs)
        trial = {"run": self.run, "config": config, "out": str(folder.resolve()), "pauses": pauses}
        return trial if self.mirror is None else {**trial, "mirror": self.mirror.address}

    def _prepare(self, folder: Path, retry_of: int | None, config: AnyRun) -> None:
        """Give a repeated trial the folder of its first attempt; a result of another run is set aside."""
        earlier = trial_folder(self.out, retry_of) if retry_of is not None else None
        if self.mirror is not None and earlier is not None:  # a node's latest upload may be the only copy
            self.mirror.pull(earlier, f"{TRIALS_FOLDER}/{earlier.name}", replace=True)
        if earlier is not None and earlier.exists() and earlier != folder:
            shutil.rmtree(folder, ignore_errors=True)
            earlier.rename(folder)
            if self.mirror is not None:  # the node that continues it may see only the mirror
                self.mirror.push(folder, f"{TRIALS_FOLDER}/{folder.name}")
                self.mirror.drop_folder(f"{TRIALS_FOLDER}/{earlier.name}")
        elif folder.exists() and not holds_run(folder, config):
            if (folder / METRICS_FILE).exists():
                set_aside(self.out, folder)
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)

    def on_trial_start(self, trial_id: str) -> None:
        """Start the clocks of a trial: a worker has taken it, the first one or a replacement."""
        live = self.live.get(trial_id)
        if live is not None:
            live.attempt_started = time.monotonic()
            live.started = live.started or live.attempt_started
            self.errors.pop(trial_id, None)

    def late(self, limit: float) -> set[str]:
        """Return the trials whose worker has had them for longer than ``limit`` seconds."""
        now = time.monotonic()
        starts = {trial_id: live.attempt_started for trial_id, live in self.live.items()}
        return {trial_id for trial_id, start in starts.items() if start is not None and now - start > limit}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the last row of a running trial."""
        live = self.live.get(trial_id)
        if live is None:
            return
        live.last = result
        values = self._values(result, live)
        if values is not None and "epoch" in result:
            live.curve[int(result["epoch"])] = values

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write the end of a trial: COMPLETE, PRUNED with rung and rank, or FAIL with its reason."""
        live = self.live.pop(trial_id, None)
        if live is None:
            return
        if (result or {}).get("disk_full"):
            self.on_disk_full()
            return
        last = _row({**live.last, **(result or {})})
        seconds = 0.0 if live.started is None else time.monotonic() - live.started
        attrs: dict[str, Any] = {"seconds": round(seconds, 3)}
        attrs["cpu_seconds"] = round(last.get("cpu_seconds", 0.0), 3)
        node = {**live.last, **(result or {})}.get("hostname")
        attrs |= {"node": node} if node else {}
        verdict = self.stopped.pop(trial_id, None)
        final: dict[str, Any] | None = None
        values: list[float] | None = None
        if verdict is not None:
            state = TrialState.PRUNED
            place = f"rank {verdict.rank + 1} of {verdict.peers} at epoch {verdict.rung}"
            attrs |= {"rung": verdict.rung, "rank": verdict.rank, "peers": verdict.peers, REASON: f"stopped: {place}"}
            values = self._values(last, live)
            if values is not None:
                live.curve[verdict.rung] = values
        elif not error and result is not None and "final" in result:
            final = json.loads(result["final"])
            values = self._values(final["metrics"], None)
            state = TrialState.COMPLETE if values is not None else TrialState.FAIL
            if values is None:
                attrs[REASON] = self._not_finite(final["metrics"])
        else:
            state = TrialState.FAIL
            reason = (result or {}).get("failed") or self.errors.pop(trial_id, None)
            attrs[REASON] = reason or "the worker was lost"
        if state != TrialState.COMPLETE:
            from routing.files.results_folder import CHECKPOINT_FILE

            attrs |= _unfinished(last)
            (trial_folder(self.out, live.number) / CHECKPOINT_FILE).unlink(missing_ok=True)
        try:
            self._end(live.number, live.handle, state, values, attrs, final, live.curve)
        except Exception as error:  # Ray Tune would blame the trial; the row stays RUNNING and is settled later
            self.failure = error

    def got_on(self) -> set[int]:
        """Return the trials that have finished an epoch since their worker took them."""
        return {live.number for live in self.live.values() if live.curve}

    def _end(
        self,
        number: int,
        handle: int,
        state: TrialState,
        values: list[float] | None,
        attrs: dict[str, Any],
        final: dict[str, Any] | None,
        curve: Curve | None = None,
    ) -> None:
        self.ledger.finish(number, state, values if state == TrialState.COMPLETE else None, attrs)
        self.proposer.observe(handle, state, values, curve)
        self.on_finished(number, state, str(attrs.get(REASON) or _words(self.metric, values)), final)

    def _values(self, metrics: dict[str, Any], live: Live | None) -> list[float] | None:
        values = []
        for name in self.metric:
            value = metrics.get(name)
            if value is None and live is not None and name == "flops":
                value = live.expected_flops
            if value is None or why_impossible(name, value):
                return None
            values.append(float(value))
        return values

    def _not_finite(self, metrics: dict[str, Any]) -> str:
        bad = [
            f"{name} is {metrics.get(name, 'missing')}"
            for name in self.metric
            if why_impossible(name, metrics.get(name))
        ]
        return f"no usable result: {', '.join(bad)}"

    def close(self) -> None:
        """Start no more trials."""
        self._asker.close()

    def end(self) -> None:
        """Start no more trials, and wait for a proposal in progress."""
        self._asker.end()

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger is on disk."""


def _row(result: dict[str, Any]) -> dict[str, Any]:
    """Return the history row inside a Ray result."""
    return {k: v for k, v in result.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def _unfinished(last: dict[str, Any]) -> dict[str, Any]:
    """Return how far a trial came that did not finish: epochs, last metrics, training seconds."""
    attrs: dict[str, Any] = {}
    if "epoch" in last:
        attrs["epochs"] = int(last["epoch"])
        attrs["last"] = {k: v for k, v in last.items() if is_metric(k) and split_of(k) != "train" and math.isfinite(v)}
    if "train_seconds" in last:
        attrs["train_seconds"] = last["train_seconds"]
    return attrs


def _words(names: list[str], values: list[float] | None) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in zip(names, values or [], strict=False))
