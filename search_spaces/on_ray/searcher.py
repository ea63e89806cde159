"""``LedgerSearch``: Ray Tune's view of the ledger. Proposes ahead in a thread, starts and ends trials in the ledger.

It is an ``OptunaSearch`` over the storage of the ledger with its own ask and tell: Ray's wrapper asks only once a
worker is idle, tells stopped trials as complete, and leaves a trial RUNNING forever when a value is NaN.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from routing.constraints import first_broken, violations
from routing.files.mirror import Mirror
from routing.files.results_folder import CHECKPOINT_FILE, trial_folder
from routing.quantities import why_impossible
from search_spaces.ledger.ledger import (
    ENQUEUED,
    EXPECTED_FLOPS,
    LOST,
    PROPOSAL,
    REASON,
    TIMEOUT,
    Ledger,
)
from search_spaces.on_ray.asking import Asker, Check, Ready
from search_spaces.on_ray.folders import prepare_folder
from search_spaces.on_ray.live import Live, in_words, node_of, row_of, unfinished
from search_spaces.on_ray.nodes import Nodes
from search_spaces.search.memory import Curve
from search_spaces.search.proposer import Proposer
from search_spaces.search.rules import Verdict
from search_spaces.stopping import Stopping


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
        stopping: told of a full disk, of a cluster without a fit node, and of each end; a trial that runs then is left
            RUNNING, to be queued again.
        nodes: what each node of the cluster lacks.
        on_finished: called with (number, state, words, final content or None) after each end.
        on_moved: called with number and words when a trial is queued again because of its node.
        version: of this package, which nodes must have; None for any.

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
        on_moved: Callable[[int, str], None],
        stopping: Stopping,
        nodes: Nodes,
        limit: int,
        rungs: Callable[[int], list[int]],
        mirror: Mirror | None = None,
        version: str | None = None,
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
        self.on_finished, self.on_moved, self.stopping = on_finished, on_moved, stopping
        self.nodes, self.version = nodes, version
        self.concurrency, self.mirror, self.rungs = concurrency, mirror, rungs
        self.live: dict[str, Live] = {}
        self.stopped: dict[str, Verdict] = {}
        self.errors: dict[str, str] = {}
        self.asked_stops: dict[str, dict[str, str]] = {}
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
        nowhere = self.nodes.why_nowhere(ready.config)
        if nowhere is not None:
            self._end(number, proposal.handle, TrialState.FAIL, None, {REASON: nowhere}, None)
            return None
        folder = prepare_folder(self.out, self.mirror, number, attrs, ready.config)
        declared = (
            self.proposer.samples and ENQUEUED in attrs
        )  # an ablation's arms are enqueued too, but may be stopped
        self.live[trial_id] = Live(number, proposal.handle, ready.config, ready.expected_flops, declared)
        config = json.dumps(ready.config.model_dump(mode="json"))
        pauses = [] if declared else self.rungs(ready.config.num_epochs)
        trial: dict[str, Any] = {"run": self.run, "config": config, "out": str(folder.resolve()), "pauses": pauses}
        trial |= {} if self.version is None else {"version": self.version}
        return trial if self.mirror is None else {**trial, "mirror": self.mirror.address}

    def on_trial_start(self, trial_id: str) -> None:
        """Start the clocks of a trial: a worker has taken it, the first one or a replacement."""
        live = self.live.get(trial_id)
        if live is not None:
            live.attempt_started = time.monotonic()
            live.started = live.started or live.attempt_started
            live.got_on = False
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
        live.note(result)
        values = self._values(result, live)
        if values is not None and "epoch" in result:
            live.curve[int(result["epoch"])] = values

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write the end of a trial: COMPLETE, PRUNED with rung and rank, or FAIL with its reason."""
        live = self.live.pop(trial_id, None)
        if live is None:
            return
        result = result or {}
        if result.get("disk_full"):
            self.stopping.disk_is_full()
            return
        if result.get("lacks") and self._moved(live, result):
            return
        last = row_of({**live.last, **result})
        seconds = 0.0 if live.started is None else time.monotonic() - live.started
        attrs: dict[str, Any] = {"seconds": round(seconds, 3)}
        attrs["cpu_seconds"] = round(last.get("cpu_seconds", 0.0), 3)
        attrs |= node_of({**live.last, **result})
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
        elif error and trial_id in self.asked_stops:
            state = TrialState.PRUNED
            attrs |= self.asked_stops.pop(trial_id)
        elif not error and "final" in result:
            final = json.loads(result["final"])
            values = self._values(final["metrics"], None)
            state = TrialState.COMPLETE if values is not None else TrialState.FAIL
            broken = first_broken(self.proposer.constraints, final["metrics"])
            if values is None:
                attrs[REASON] = self._not_finite(final["metrics"])
            elif broken:
                attrs[REASON] = f"violates {broken}"
        else:
            state = TrialState.FAIL
            attrs[REASON] = result.get("failed") or self.errors.pop(trial_id, None) or LOST
        if state != TrialState.COMPLETE:
            attrs |= unfinished(last)
            if not str(attrs[REASON]).startswith(LOST):  # which --retry-failed goes on with
                (trial_folder(self.out, live.number) / CHECKPOINT_FILE).unlink(missing_ok=True)
        try:
            self._end(
                live.number, live.handle, state, values, attrs, final, live.curve, result.get("of_setting", False)
            )
        except Exception as error:  # Ray Tune would blame the trial; the row stays RUNNING and is settled later
            self.failure = error

    def got_on(self) -> set[int]:
        """Return the trials that have finished an epoch since their worker took them."""
        return {live.number for live in self.live.values() if live.got_on}

    def leave_out(self, node_id: str, lacks: str, live: Live, reason: str) -> None:
        """Keep trials with this need off a node, and say so; stop where no node is left."""
        line, closed = self.nodes.leave_out(node_id, lacks, live.config, reason), self.nodes.is_closed()
        if closed is not None:
            self.stopping.no_node_is_left(closed)
        elif self.nodes.why_nowhere(live.config) is None:
            self.on_moved(live.number, "" if line is None else f"{line}; trial {live.number} is queued again")

    def _moved(self, live: Live, result: dict[str, Any]) -> bool:
        """Queue a trial again that its node is not fit for; return False where no other node is left for it."""
        self.leave_out(result["node_id"], result["lacks"], live, result["failed"])
        if self.stopping.failure is not None:
            return True  # stays RUNNING, to be queued again by --resume
        if self.nodes.why_nowhere(live.config) is not None:
            return False
        self.proposer.memory.drop(live.handle, TrialState.FAIL)
        self.ledger.requeue(self.ledger.trial(live.number), result["failed"])
        self._asker.again()
        return True

    def _end(
        self,
        number: int,
        handle: int,
        state: TrialState,
        values: list[float] | None,
        attrs: dict[str, Any],
        final: dict[str, Any] | None,
        curve: Curve | None = None,
        of_setting: bool = False,
    ) -> None:
        reason = str(attrs.get(REASON, ""))
        self.ledger.finish(number, state, values if state == TrialState.COMPLETE else None, attrs)
        reached = {} if final is None else final["metrics"]
        self.proposer.observe(handle, state, values, curve, violations(self.proposer.constraints, reached))
        self.on_finished(number, state, reason or in_words(self.metric, values), final)
        failed = state == TrialState.FAIL and not of_setting and not reason.startswith(TIMEOUT)
        folder = str(trial_folder(self.out, number).resolve())
        self.stopping.ended(reason.replace(folder, "its folder") if failed else None)

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

    def one_more(self) -> None:
        """Take one more trial: a person has enqueued it."""
        self._asker.again()

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
