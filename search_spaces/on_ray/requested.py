"""What people ask of a running sweep is done between two steps of Ray Tune."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import ray
from ray.tune.experiment import Trial

from search_spaces.ledger.ledger import Ledger
from search_spaces.ledger.requests import ENQUEUE, FINISH, STOP, Request, enqueue_asked, requests, stopped_by, take
from search_spaces.on_ray.searcher import LedgerSearch
from search_spaces.stopping import Stopping

_LOOKS_EVERY = 1.0


class Requested:
    """Looks for requests in the results folder ``out``, once a second.

    Args:
        say: called with a line on each request that is met.
        more: called when the study has got another trial.
    """

    def __init__(
        self, out: Path, ledger: Ledger, stopping: Stopping, say: Callable[[str], None], more: Callable[[], None]
    ) -> None:
        self.out, self.ledger, self.stopping, self.say, self.more = out, ledger, stopping, say, more
        self._next = 0.0

    def look(self, search: LedgerSearch, trials: list[Trial]) -> bool:
        """Meet what is asked for; return whether the ledger has another row."""
        now, has_more = time.monotonic(), False
        if now < self._next:
            return False
        self._next = now + _LOOKS_EVERY
        for request in requests(self.out):
            if request.what == ENQUEUE:
                line, is_queued = enqueue_asked(self.ledger, search.proposer.space, request)
                self.say(line)
                if is_queued:
                    has_more = True
                    self.more()
                    search.one_more()
            elif request.what == STOP:
                self._stop(request, search, trials)
            elif request.what == FINISH and self.stopping.finished_by is None:
                self.stopping.finish(request.who)
                search.close()
                self.say(f"{request.who} ends the sweep: what runs now is the last")
        return has_more

    def _stop(self, request: Request, search: LedgerSearch, trials: list[Trial]) -> None:
        """Kill the worker of a trial, which then ends as stopped; one that waits for a worker is killed later."""
        running = {search.live[trial.trial_id].number: trial for trial in trials if trial.trial_id in search.live}
        if request.trial not in running:
            take(request)  # it has ended
            return
        trial = running[request.trial]
        actor = trial.temporary_state.ray_actor
        if actor is not None and trial.trial_id not in search.asked_stops:
            search.asked_stops[trial.trial_id] = stopped_by(request)
            trial.max_failures = 0
            ray.kill(actor, no_restart=True)
