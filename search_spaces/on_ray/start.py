"""What a private Ray on this machine does without, so that trials start sooner.

Ray has no switches for this. What another version of it does not have by these names is left as it is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SERVES_NO_SWEEP = ("start_api_server", "start_monitor", "start_log_monitor")
"""Methods of Ray's node that start the dashboard's server, the autoscaler and the forwarder of workers' output."""
_REGISTERS_WITHIN = 30.0
_LOOKS_EVERY = 0.05


@contextmanager
def lean_start() -> Iterator[None]:
    """While ``ray.init`` starts a private cluster: loopback only, only what trials need, and no waiting for the clock.

    ``ray.init`` starts the dashboard's server, and waits for it, even when told to include no dashboard. ``ray start``
    can leave out the autoscaler and the log monitor (``--no-monitor``, ``--include-log-monitor=false``), it cannot.
    """
    from ray._private import services
    from ray._private.node import Node

    idle = dict.fromkeys(_SERVES_NO_SWEEP, _does_nothing)
    with _loopback_only(), _replaced(Node, **idle), _replaced(services, get_node=_get_node):
        yield


@contextmanager
def lean_trials() -> Iterator[None]:
    """While Ray Tune runs on a private cluster: trials get the processes that Ray has started beforehand.

    By default they never do. A reservation (placement group) keeps together what several nodes would scatter; it is
    those processes that Ray asks whether it holds, and trials get others. An environment of the trials' own needs other
    processes, too; here they have all of the driver's anyway.
    """
    from ray.air.execution import FixedResourceManager
    from ray.tune.execution import class_cache, tune_controller

    with (
        _replaced(tune_controller, PlacementGroupResourceManager=FixedResourceManager),
        _replaced(class_cache, DEFAULT_ENV_VARS={}, ENV_VARS_TO_PROPAGATE=set()),
    ):
        yield


def _does_nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _get_node(gcs_address: str, node_id: str) -> Any:
    """Return what Ray's own ``get_node`` does, once the node has registered; that looks once a second."""
    from ray._private import services
    from ray._private.state import GlobalState

    state = GlobalState()
    state._initialize_global_state(services._get_gcs_client_options(gcs_address))
    deadline = time.monotonic() + _REGISTERS_WITHIN
    while time.monotonic() < deadline and not any(node["NodeID"] == node_id for node in state.node_table()):
        time.sleep(_LOOKS_EVERY)
    return state.get_node(node_id)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Have a private cluster listen on 127.0.0.1 only.

    On Linux Ray puts the machine's outer address in place of 127.0.0.1 and then listens on every interface, unless it
    is told that this machine cannot be part of a larger cluster.
    """
    from ray._private import ray_constants

    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        with _replaced(ray_constants, ENABLE_RAY_CLUSTER=False):
            yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextmanager
def _replaced(owner: Any, **names: Any) -> Iterator[None]:
    """Give attributes other values for a while; those that ``owner`` does not have it does not get."""
    before = {name: getattr(owner, name) for name in names if hasattr(owner, name)}
    for name in before:
        setattr(owner, name, names[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)
