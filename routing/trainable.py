"""``RunTrainable``: one process that trains one run after another for Ray Tune (the only file here that names Ray).

Every epoch is one ``step``. The run trains in a thread of its own. At an epoch where the scheduler may stop it, it
waits until Ray asks for the next step, so that a stopped run ends exactly there and the warm process goes to the next
trial.
At all other epochs it trains on while Ray processes the reported row.
"""

from __future__ import annotations

import gc
import json
import platform
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune

from routing.config.plugins import leave_current_folder
from routing.config.script import AnyRun, read_run
from routing.errors import InputError, NodeFault, RoutingError, TrialFailed, is_disk_full
from routing.files.atomic import write_text
from routing.files.mirror import Mirror
from routing.files.printed import printed_to
from routing.files.record import read_metrics
from routing.files.results_folder import CONFIG_FILE, ERROR_FILE, LOG_FILE, METRICS_FILE
from routing.files.scratch import scratch_folder
from routing.node import function_of, lacks, run_of, versions
from routing.training.memory import return_freed_memory

_SEND_AGAIN_AFTER = (1.0, 5.0, 20.0, 60.0)
"""Seconds between attempts to send a finished run to its mirror."""


class RunStopped(BaseException):
    """Ends a stopped run at its next report; a ``BaseException``, so that no ``except Exception`` can catch it."""


class RunTrainable(tune.Trainable):
    """Trains runs for Ray Tune, several in a row in one process (``reuse_actors``).

    A trial is the mapping ``{"run": "module:function", "config": JSON of a RunConfig, "out": folder}``. Optional keys:
    ``pauses``, the epochs after which it may be stopped (default: every one); ``mirror``, a URL to which the files of
    the trial are uploaded every epoch, for nodes that share no folder; ``version``, that of the package which the node
    must have. Every step returns the history row of an epoch, the ``cpu_seconds`` of the trial so far and ``versions``,
    the node's; the last one has ``done`` and either ``final`` (JSON of metrics and points) or ``failed`` (the reason,
    returned and not raised: an exception would cost the warm process). With ``failed`` come ``lacks``, what of the
    trial this node is not fit for (``NodeFault.of``; empty: it is not the node), ``of_setting``, whether the setting
    diverged, and ``node_id``.
    """

    def setup(self, config: dict[str, Any]) -> None:
        leave_current_folder()  # Ray adds the driver's current folder to the path of its workers
        with suppress(Exception):  # import before the first trial's time starts; an error comes up again in the trial
            run_of(config)
        self._versions = json.dumps(versions())
        self._handover = _Handover(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._handover.stop()
        _reset_process()
        self._handover = _Handover(new_config)
        return True

    def step(self) -> dict[str, Any]:
        return {**self._handover.next(), "versions": self._versions}

    def cleanup(self) -> None:
        self._handover.stop()


class _Handover:
    """Runs one trial in a thread and hands its rows over one at a time."""

    def __init__(self, trial: dict[str, Any]) -> None:
        self._trial = trial
        self._cpu_before = time.process_time()
        self._rows: queue.SimpleQueue[tuple[dict[str, Any], bool]] = queue.SimpleQueue()
        self._wanted = threading.Semaphore(0)
        self._is_waiting, self._stopping = True, False
        self._thread = threading.Thread(target=self._work, daemon=True, name="run")
        self._thread.start()

    def next(self) -> dict[str, Any]:
        """Return the next report; a waiting run is resumed first."""
        if self._is_waiting:
            self._wanted.release()
        row, self._is_waiting = self._rows.get()
        return {**row, "cpu_seconds": time.process_time() - self._cpu_before}

    def stop(self) -> None:
        """End the run at its next report and wait for it."""
        self._stopping = True
        self._wanted.release()
        self._thread.join()

    def _report(self, row: dict[str, float]) -> None:
        pauses = self._trial.get("pauses")
        waits = pauses is None or row.get("epoch") in pauses
        self._rows.put((dict(row), waits))
        if waits:
            self._wait()
        elif self._stopping:
            raise RunStopped

    def _wait(self) -> None:
        self._wanted.acquire()
        if self._stopping:
            raise RunStopped

    def _end(self, **result: Any) -> None:
        self._rows.put(({"done": True, **result}, False))

    def _work(self) -> None:
        try:
            self._wait()
            self._end(final=json.dumps(self._result()))
        except RunStopped:
            return
        except BaseException as error:
            self._end(
                failed=self._reason(error),
                disk_full=is_disk_full(error),
                lacks=lacks(error),
                of_setting=isinstance(error, TrialFailed),
                node_id=ray.get_runtime_context().get_node_id() if ray.is_initialized() else "",
            )

    def _result(self) -> dict[str, Any]:
        """Return metrics and points of the run; one that has finished already is not trained again.

        The traceback of an unexpected error goes to error.txt.
        """
        config = run_of(self._trial)
        with _workplace(Path(self._trial["out"]), self._trial.get("mirror")) as (out, publish):

            def report(row: dict[str, float]) -> None:
                with suppress(RoutingError):  # a failed upload is repeated with the next row
                    publish()
                self._report(row)

            try:
                if not _is_finished(out, config):
                    with printed_to(out / LOG_FILE):
                        function_of(self._trial)(config, report, out)
            except Exception as error:
                if not isinstance(error, RoutingError):
                    with suppress(OSError):
                        write_text(out / ERROR_FILE, "".join(traceback.format_exception(error)))
                    publish()
                raise
            _insist(publish)
            content = read_metrics(out)
        return {"metrics": content["metrics"], "points": content.get("points", [])}

    def _reason(self, error: BaseException) -> str:
        """Return one line on what went wrong."""
        text = " ".join(str(error).split())
        return text if isinstance(error, RoutingError) else f"{type(error).__name__}: {text}"[:500].rstrip(": ")


@contextmanager
def _workplace(out: Path, mirror: str | None) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Yield the folder this process trains in and the function that uploads it for the driver to read.

    The driver creates the parent of ``out``. Where a node does not see that folder, files go through the mirror.
    """
    visible = out.parent.is_dir()
    if mirror is None:
        if not visible:
            raise NodeFault(
                f"{out.parent} is not on node {platform.node()}: --out must be a path all nodes share, or a URL"
            )
        yield out, lambda: None
        return
    files, name = Mirror(mirror), f"{out.parent.name}/{out.name}"
    with nullcontext(out) if visible else scratch_folder() as folder:
        files.pull(folder, name)
        yield folder, lambda: files.push(folder, name)


def _insist(publish: Callable[[], None]) -> None:
    """Upload the files of a finished run, retried with back-off: without it the result may be lost."""
    for pause in _SEND_AGAIN_AFTER:
        with suppress(RoutingError):
            return publish()
        time.sleep(pause)
    publish()


def _is_finished(out: Path, config: AnyRun) -> bool:
    """Return whether ``out`` holds the whole result of this run; an unreadable one is removed."""
    if not (out / METRICS_FILE).exists():
        return False
    try:
        read_metrics(out)
        return read_run(out / CONFIG_FILE).is_same_run(config)
    except (InputError, OSError):
        (out / METRICS_FILE).unlink(missing_ok=True)
        return False


def _reset_process() -> None:
    """Free the memory of the last run; every run sets its own seeds, threads and switches."""
    gc.collect()
    return_freed_memory()
    gc.freeze()  # only libraries are left: scanning the objects of torch alone would take 200 ms at every collection
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
