"""Shorter start of a private Ray on this machine: services that trials do not need are left out.

Ray has no switches for this, so private names of Ray are replaced, see ``private``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from search_spaces.on_ray import private

_SERVES_NO_SWEEP = (private.START_API_SERVER, private.START_MONITOR, private.START_LOG_MONITOR)
"""Methods of Ray's node that start the dashboard's server, the autoscaler and the forwarder of workers' output."""
_REGISTERS_WITHIN = 30.0
_LOOKS_EVERY = 0.05


@contextmanager
def lean_start() -> Iterator[None]:
    """Have ``ray.init`` listen on loopback only, start only what trials need, and poll for the node more often.

    ``ray.init`` starts the dashboard's server, and waits for it, even with ``include_dashboard=False``. Unlike
    ``ray start`` (``--no-monitor``, ``--include-log-monitor=false``) it cannot leave out autoscaler and log monitor.
    """
    changes: dict[private.Private, Any] = dict.fromkeys(_SERVES_NO_SWEEP, _does_nothing)
    if private.CLIENT_OPTIONS.get() is not None and private.GLOBAL_STATE.get() is not None:
        changes[private.GET_NODE] = _get_node
    with _loopback_only(), private.replaced(changes):
        yield


@contextmanager
def errors_unsaid() -> Iterator[None]:
    """Keep what Ray publishes of dying processes, fifty lines of its state at a time, off the terminal.

    The ends of its logs are kept where it dies; a lost worker is in the reason of its trial.
    """
    with private.replaced({private.PRINT: _does_nothing}):
        yield


@contextmanager
def lean_trials() -> Iterator[None]:
    """While Ray Tune runs on a private cluster, start trials in the worker processes that Ray has started in advance.

    By default they get new ones: an actor in a placement group, or with environment variables of its own, cannot use a
    process started in advance. A placement group keeps the parts of a trial on one node, and here there is only one;
    the variables that Ray Tune passes on are inherited from the driver anyway.
    """
    from ray.air.execution import FixedResourceManager

    with private.replaced({private.RESOURCE_MANAGER: FixedResourceManager}), plain_workers():
        yield


@contextmanager
def plain_workers() -> Iterator[None]:
    """While Ray Tune runs, give its actors no environment variables of their own.

    Ray starts the workers of those that have some through ``bash -c``, and hands it the interpreter's path unquoted.
    """
    with private.replaced({private.DEFAULT_VARIABLES: {}, private.PASSED_VARIABLES: set()}):
        yield


def _does_nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _get_node(gcs_address: str, node_id: str) -> Any:
    """Return what Ray's ``get_node`` returns; Ray's checks only once a second whether the node has registered."""
    state = private.GLOBAL_STATE.get()()
    state._initialize_global_state(private.CLIENT_OPTIONS.get()(gcs_address))
    deadline = time.monotonic() + _REGISTERS_WITHIN
    while time.monotonic() < deadline and not any(node["NodeID"] == node_id for node in state.node_table()):
        time.sleep(_LOOKS_EVERY)
    return state.get_node(node_id)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Have a private cluster listen on 127.0.0.1 only.

    On Linux Ray replaces 127.0.0.1 by the machine's network address and then listens on every interface, unless
    clusters of several nodes are disabled.
    """
    name = private.CLUSTERS_VARIABLE.get()
    if name is None:
        yield
        return
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        with private.replaced({private.ENABLE_CLUSTER: False}):
            yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
