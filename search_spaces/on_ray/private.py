"""Every private name of Ray that is used, in one place: what it is for, and what is lost where a version lacks it.

Ray promises nothing of them. One that is missing costs its feature, is left as it is, and is said once at the start.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Private:
    """A private name: ``owner`` is a module, or ``module:Class``; ``lost`` is what there is not without it."""

    owner: str
    name: str
    lost: str

    def holder(self) -> Any:
        """Return the module or class that has the name, None where there is none."""
        module, _, inner = self.owner.partition(":")
        try:
            found = importlib.import_module(module)
        except ImportError:
            return None
        return getattr(found, inner, None) if inner else found

    def get(self) -> Any:
        """Return what the name stands for, None where it is missing."""
        return getattr(self.holder(), self.name, None)


_SERVICES, _NODE = "ray._private.services", "ray._private.node:Node"
_START_LATER = "a private Ray starts later, with services that no sweep needs"

START_API_SERVER = Private(_NODE, "start_api_server", _START_LATER)
START_MONITOR = Private(_NODE, "start_monitor", _START_LATER)
START_LOG_MONITOR = Private(_NODE, "start_log_monitor", _START_LATER)
GET_NODE = Private(_SERVICES, "get_node", "a private Ray starts up to a second later")
CLIENT_OPTIONS = Private(_SERVICES, "_get_gcs_client_options", GET_NODE.lost)
GLOBAL_STATE = Private("ray._private.state", "GlobalState", GET_NODE.lost)
STATE = Private("ray._private.state", "state", "a node that lacks this package is not named")
BOOTSTRAP_ADDRESS = Private(_SERVICES, "canonicalize_bootstrap_address", "--address auto is not tried beforehand")
PRINT = Private("ray._private.worker", "print_to_stdstream", "Ray prints fifty lines where a process dies")
GLOBAL_NODE = Private("ray._private.worker", "_global_node", "the end of Ray is noticed late and has no reason")
RESOURCE_MANAGER = Private(
    "ray.tune.execution.tune_controller",
    "PlacementGroupResourceManager",
    "trials wait for workers of their own",
)
DEFAULT_VARIABLES = Private("ray.tune.execution.class_cache", "DEFAULT_ENV_VARS", RESOURCE_MANAGER.lost)
PASSED_VARIABLES = Private("ray.tune.execution.class_cache", "ENV_VARS_TO_PROPAGATE", RESOURCE_MANAGER.lost)
ENABLE_CLUSTER = Private("ray._private.ray_constants", "ENABLE_RAY_CLUSTER", "a private Ray listens on every interface")
CLUSTERS_VARIABLE = Private("ray._private.ray_constants", "ENABLE_RAY_CLUSTERS_ENV_VAR", ENABLE_CLUSTER.lost)
TAG_CALLBACKS = Private("ray.air._internal.usage", "tag_callbacks", "Ray Tune imports mlflow, which takes 2 s")
LOGGERS = ("ray.tune", "ray.tune.tune", "ray._private.worker")
"""Names of loggers that are kept off the terminal; one that is not used any more does no harm."""

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Private))


def lost_features() -> list[str]:
    """Return a line for everything that this version of Ray takes away, each once."""
    lost: dict[str, list[str]] = {}
    for one in ALL:
        if not hasattr(one.holder(), one.name):
            lost.setdefault(one.lost, []).append(one.name)
    return [f"note: this version of Ray has no {', '.join(names)}: {what}" for what, names in lost.items()]


@contextmanager
def replaced(changes: dict[Private, Any]) -> Iterator[None]:
    """Replace private names for the duration of the context; those that are missing are left as they are."""
    with ExitStack() as before:
        for one, value in changes.items():
            holder = one.holder()
            if hasattr(holder, one.name):
                before.callback(setattr, holder, one.name, getattr(holder, one.name))
                setattr(holder, one.name, value)
        yield
