"""Is this machine fit for a trial? What it lacks, another node of a cluster may have."""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from routing import __version__
from routing.config.script import AnyRun, run_from_dict
from routing.errors import InputError, MissingPackage, NodeFault

RunFunction = Callable[..., Any]


def versions() -> dict[str, str]:
    """Return what a result may depend on: the versions of this package, of torch and of Python."""
    found = {"routing": __version__, "python": platform.python_version()}
    with suppress(PackageNotFoundError):
        found["torch"] = version("torch")
    return found


def function_of(trial: dict[str, Any]) -> RunFunction:
    """Return the function ``module:name`` that trains a trial."""
    module, _, name = trial["run"].partition(":")
    function: RunFunction = getattr(importlib.import_module(module), name)
    return function


def run_of(trial: dict[str, Any]) -> AnyRun:
    """Return the run of a trial.

    Raises:
        NodeFault: here is another version of the package, or what every trial imports cannot be imported.
    """
    wanted = trial.get("version") or __version__
    if wanted != __version__:
        raise NodeFault(
            f"routing-sweeps {__version__} is on node {platform.node()}, {wanted} on the driver's (valid: the same, "
            "or --allow-mixed-versions)"
        )
    try:
        function_of(trial)
        return run_from_dict(json.loads(trial["config"]))
    except (InputError, ImportError, AttributeError) as error:
        raise NodeFault(f"{error} (on node {platform.node()})") from None


def lacks(error: BaseException) -> str:
    """Return what of a trial this node is not fit for, as ``NodeFault.of``; empty where the failure is the trial's."""
    if isinstance(error, NodeFault):
        return error.of
    return "model" if isinstance(error, (MissingPackage, ImportError)) else ""
