"""Proposing ahead: a thread draws settings while trials run, so that a slow sampler leaves no worker idle."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from routing.config.script import AnyRun
from search_spaces.ledger.ledger import REPLACES, RETRY_OF, Ledger, setting_of
from search_spaces.search.proposer import Proposal, Proposer

Check = Callable[[dict[str, Any]], tuple[AnyRun, float] | str]
"""Setting -> its run and expected FLOPs, or the reason why it may not run."""
_WAIT_SECONDS = 1.0
"""Longest time that Ray Tune waits for a proposal at once, so that signals are handled in between."""
_END_SECONDS = 60.0


class _Closed(Exception):
    """Abandons the proposal in progress after ``close``."""


@dataclass(frozen=True)
class Ready:
    """A proposal that can start; one without ``config`` was enqueued but is refused.

    ``waiting`` is the row of the ledger that it comes from, None for a fresh one.
    """

    proposal: Proposal
    config: AnyRun | None
    expected_flops: float
    waiting: FrozenTrial | None


class Asker:
    """Keeps proposals ready: interrupted trials first, then the ledger's other WAITING trials, then the sampler's.

    Args:
        ledger: read for WAITING trials; never written to.
        proposer: the sampler.
        check: builds the run of a setting.
        limit: proposals to hand out in all.
        ahead: trials that run at once, and proposals drawn before the first starts. After that only as many are kept
            ready as are taken while the sampler draws one, so that each proposal uses the latest results.
    """

    def __init__(self, ledger: Ledger, proposer: Proposer, check: Check, limit: int, ahead: int) -> None:
        self._ledger, self._proposer, self._check = ledger, proposer, check
        self._left, self._most, self._ahead = limit, ahead, ahead
        self._taken: deque[float] = deque(maxlen=ahead + 1)  # a round of all workers
        self._asking_seconds = 0.0
        self._ready: deque[Ready] = deque()
        self._claimed: set[int] = set()
        self._condition = threading.Condition()
        self._closed = False
        self._is_dry = False
        """Whether no row waited and the sampler had nothing left when last asked; ``again`` ends it."""
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="asker")
        self._thread.start()

    def take(self, wait: bool) -> Ready | None:
        """Return a proposal, None when there is none yet; ``wait`` for it when nothing else is running."""
        with self._condition:
            if wait and not self._ready and not self._over():
                self._condition.wait(_WAIT_SECONDS)
            if self._failure is not None:
                raise self._failure
            if not self._ready:
                return None
            self._left -= 1
            self._taken.append(time.monotonic())
            self._ahead = enough_ahead(self._taken, self._asking_seconds, self._most)
            self._condition.notify_all()
            return self._ready.popleft()

    def again(self) -> None:
        """Hand out one more: a trial was queued again. After the last one is out, the next segment takes it."""
        with self._condition:
            if self._left > 0 and not self._closed:
                self._left += 1
                self._is_dry = False
                self._condition.notify_all()

    def is_over(self) -> bool:
        """Return whether nothing more will be handed out."""
        with self._condition:
            return self._over()

    def close(self) -> None:
        """Hand out nothing more."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def end(self) -> None:
        """Close, and wait for the proposal in progress: a thread still computing at process exit can crash it."""
        self.close()
        self._thread.join(_END_SECONDS)

    def _over(self) -> bool:
        return self._closed or self._left <= 0 or (self._is_dry and not self._ready)

    def _work(self) -> None:
        try:
            while self._wait_for_demand():
                started = time.monotonic()
                ready = self._ask()
                with self._condition:
                    self._asking_seconds = time.monotonic() - started
                    if ready is not None:
                        self._ready.append(ready)
                    self._is_dry = ready is None
                    self._condition.notify_all()
        except _Closed:
            return
        except BaseException as error:
            with self._condition:
                self._failure = error
                self._condition.notify_all()

    def _wait_for_demand(self) -> bool:
        """Wait until another proposal is wanted; return False when none ever will be."""
        with self._condition:
            while not self._closed and self._left > 0 and self._has_enough():
                self._condition.wait()
            return not self._closed and self._left > 0

    def _has_enough(self) -> bool:
        return self._is_dry or len(self._ready) >= min(self._ahead, self._left)

    def _ask(self) -> Ready | None:
        queued = sorted(self._ledger.trials((TrialState.WAITING,)), key=_is_first_time)
        waiting = next((trial for trial in queued if trial.number not in self._claimed), None)
        accepted: dict[str, tuple[AnyRun, float]] = {}

        def accept(values: dict[str, Any]) -> str | None:
            if self._closed:
                raise _Closed
            verdict = self._check(values)
            if isinstance(verdict, str):
                return verdict
            accepted["last"] = verdict
            return None

        if waiting is None:
            proposal = self._proposer.propose(accept)
        else:
            proposal = self._proposer.propose(accept, setting_of(waiting), waiting.number)
        if proposal is None:
            return None
        if waiting is not None:
            self._claimed.add(waiting.number)
        config, flops = (None, 0.0) if proposal.refused is not None else accepted["last"]
        return Ready(proposal, config, flops, waiting)


def enough_ahead(taken: Sequence[float], asking_seconds: float, workers: int) -> int:
    """Return how many proposals to keep ready: one, plus those that are taken while the next is drawn.

    Args:
        taken: times (s) at which the last ones were taken. The first trials all start at once, so that fewer than one
            round of all workers gives no rate.
        asking_seconds: time the last proposal took.
        workers: trials at once, the upper limit.
    """
    if len(taken) <= workers:
        return 1
    between = (taken[-1] - taken[0]) / (len(taken) - 1)
    return min(1 + int(asking_seconds / max(between, 1e-3)), workers)


def _is_first_time(trial: FrozenTrial) -> bool:
    """Return whether a trial was not started before: started ones go first, so that an ablation runs in order."""
    return RETRY_OF not in trial.user_attrs and REPLACES not in trial.user_attrs
