"""Ray for one study: a private local cluster bound to loopback, or a running one; quiet, and shut down afterwards."""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import math
import os
import secrets
import shlex
import sys
import threading
from collections.abc import Container, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from routing.errors import InputError, RoutingError
from routing.files.scratch import scratch_folder
from search_spaces.on_ray import private
from search_spaces.on_ray.reach import check_loopback
from search_spaces.on_ray.start import errors_unsaid, lean_start, lean_trials, plain_workers
from search_spaces.study.schema import ResourcesSection

_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TOKEN = secrets.token_hex(32)
"""Of the private clusters of this process."""
_LONGEST_SOCKET = "ray/session_2026-12-01_00-00-00_000000_4194304/sockets/plasma_store.1"
"""Below the temporary folder."""
_OBJECT_STORE_BYTES = 256 * 1024**2
_WORKER_ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # the default of 15 starves trials on a shared machine
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_NEEDED_NEXT = ("torch", "pandas", "pyarrow.fs", "routing.evaluation.compute")
"""Modules that the driver needs next and that do not need Ray: imported while Ray's processes start."""
_DRIVER_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a banner whatever the verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports a reason instead of metrics
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # Ray's own state is never read: the ledger has everything
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "600",
}


def machine_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_gpus() -> int:
    """Return how many CUDA devices this machine shows."""
    import torch

    return torch.cuda.device_count()


def local_concurrency(resources: ResourcesSection, concurrency: int | None) -> int:
    """Return how many trials run at once on this machine.

    Raises:
        InputError: they need more CPUs or GPUs than it has.
    """
    cpus, gpus = machine_cpus(), machine_gpus() if resources.gpu else 0
    if resources.custom:
        names = ", ".join(resources.custom)
        raise InputError(f"resources.custom ({names}): only a cluster has custom resources; give its --address")
    fits = [math.floor(cpus / resources.cpu + 1e-9)] if resources.cpu else []
    fits += [math.floor(gpus / resources.gpu + 1e-9)] if resources.gpu else []
    most = min(fits, default=cpus)
    if most < 1:
        need = f"{resources.cpu:g} CPUs" + (f" and {resources.gpu:g} GPUs" if resources.gpu else "")
        raise InputError(f"resources: a trial needs {need}; this machine has {cpus} CPUs and {gpus} GPUs")
    if concurrency is None:
        return most
    if concurrency > most:
        need = f"{concurrency * resources.cpu:g} CPUs" + (
            f" and {concurrency * resources.gpu:g} GPUs" if resources.gpu else ""
        )
        has = f"{cpus} CPUs" + (f" and {gpus} GPUs" if resources.gpu else "")
        raise InputError(
            f"concurrency {concurrency} needs {need}; this machine has {has} (at most {most} trials at once)"
        )
    return concurrency


def check_machine(resources: ResourcesSection, concurrency: int | None = None, address: str | None = None) -> None:
    """Raise ``InputError`` where trials are to run on this machine, and one needs more than it has."""
    if cluster_address(address) is None:
        local_concurrency(resources, concurrency)


def cluster_address(address: str | None) -> str | None:
    """Return the address of the running cluster to join, by default ``RAY_ADDRESS``; None for one of our own."""
    joined = address or os.environ.get("RAY_ADDRESS")
    return joined if joined and joined != "local" else None


@contextmanager
def session(address: str | None, concurrency: int, resources: ResourcesSection) -> Iterator[Path]:
    """Start or join Ray; yields a temporary folder for Ray Tune's own files, deleted afterwards.

    Raises:
        InputError: nothing answers at ``address``.
    """
    os.environ.update(_DRIVER_ENVIRONMENT)
    for key, value in _WORKER_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import ray

    mine = not ray.is_initialized()
    with ExitStack() as own_token, scratch_folder(socket_name=len(_LONGEST_SOCKET)) as scratch:
        try:
            threading.Thread(target=_import_all, args=(_NEEDED_NEXT,), daemon=True).start()
            if mine and cluster_address(address) is None:
                own_token.enter_context(_own_token())
                check_loopback()
            if mine:
                _start(cluster_address(address), concurrency, resources, scratch)
            for name in private.LOGGERS:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            _leave_callbacks_uncounted()
            with errors_unsaid(), _trials_of(address, mine):
                yield scratch
        finally:
            atexit.unregister(gc.freeze)
            atexit.register(gc.freeze)  # a last collection over all objects of torch and Ray takes half a second
            if mine:
                ray.shutdown()
            else:
                gc.collect()  # Ray Tune frees its placement groups with its objects, which are cyclic


def _trials_of(address: str | None, mine: bool) -> AbstractContextManager[None]:
    """Return how Ray Tune starts workers: in those of a private cluster, and where bash would not find them, bare."""
    if mine and cluster_address(address) is None:
        return lean_trials()
    return nullcontext() if worker_environment(sys.executable) is None else plain_workers()


@contextmanager
def _own_token() -> Iterator[None]:
    """Give a private cluster a random token through the environment; Ray would keep one in a file of the home folder.

    One that the user has set stays. Ray reads the token once per process, so that every cluster of a process shares it.
    """
    if any(os.environ.get(name) for name in _TOKEN_VARIABLES):
        yield
        return
    os.environ[_TOKEN_VARIABLES[0]] = _TOKEN
    try:
        yield
    finally:
        os.environ.pop(_TOKEN_VARIABLES[0], None)


def start_together(concurrency: int) -> None:
    """Let Ray Tune start this many trials at once; by default each waits until the process of the last has started."""
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrency)


def _leave_callbacks_uncounted() -> None:
    """Keep Ray Tune from counting callbacks for its usage statistics: it imports mlflow for that, which takes 2 s."""
    holder = private.TAG_CALLBACKS.holder()
    if holder is not None:
        setattr(holder, private.TAG_CALLBACKS.name, lambda callbacks: None)


def _import_all(modules: Iterable[str]) -> None:
    for module in modules:
        with suppress(ImportError):  # the module that needs it reports the error
            importlib.import_module(module)


def _start(address: str | None, concurrency: int, resources: ResourcesSection, scratch: Path) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    quiet["job_config"] = job = ray.job_config.JobConfig()
    job._py_driver_sys_path = _WithoutCurrentFolder()
    try:
        if address is not None:
            ray.init(address=address, **quiet)
            return
        with lean_start():
            ray.init(
                address="local",
                num_cpus=max(math.ceil(concurrency * resources.cpu), 1),
                num_gpus=math.ceil(concurrency * resources.gpu - 1e-9) if resources.gpu else 0,
                include_dashboard=False,
                dashboard_host="127.0.0.1",
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=str(scratch / "ray"),
                runtime_env=worker_environment(sys.executable),
                **quiet,
            )
    except (ConnectionError, ValueError, RuntimeError, OSError, ray.exceptions.RayError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if address is not None:
            token = "" if os.environ.get("RAY_AUTH_MODE") else "; if it asks for a token, set RAY_AUTH_MODE=token"
            raise InputError(f"no Ray cluster answers at {address}: {line}{token}") from None
        raise RoutingError(f"Ray did not start: {line}") from None


class _WithoutCurrentFolder(list[str]):
    """What Ray puts in front of the path of its workers: a file of the user's must not stand in for a package of ours.

    Ray adds the driver's current folder, which workers would search before site-packages.
    """

    def extend(self, folders: Iterable[str]) -> None:
        """Add folders, the current one only where this package itself lies in it."""
        here = Path.cwd().resolve()
        stays = here == Path(__file__).resolve().parents[2]
        super().extend(folder for folder in folders if stays or Path(folder).resolve() != here)


def worker_environment(python: str) -> dict[str, str] | None:
    """Return what a private Ray must be told of this interpreter's path, None where ``plain_workers`` can do its work.

    Without that, Ray hands the path to bash as it is, and workers never start from one that bash would split.
    """
    quoted = shlex.quote(python)
    are_plain = None not in (private.DEFAULT_VARIABLES.get(), private.PASSED_VARIABLES.get())
    return None if are_plain or quoted == python else {"py_executable": quoted}


def cluster_concurrency(resources: ResourcesSection) -> int:
    """Return how many trials the nodes of the cluster have room for, each on a node of its own or beside others.

    Raises:
        InputError: no node could hold a trial.
    """
    import ray

    room = has_room(resources)
    if room < 1:
        need = ", ".join(f"{amount:g} {name}" for name, amount in _needs(resources).items())
        count = sum(node["Alive"] for node in ray.nodes())
        raise InputError(f"resources: a trial needs {need}; none of the {count} nodes of the cluster has that")
    return room


def has_room(resources: ResourcesSection, left_out: Container[str] = ()) -> int:
    """Return how many trials the nodes of the cluster have room for, those with a ``left_out`` id not counted."""
    import ray

    needs = _needs(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node.get("NodeID") not in left_out]
    return sum(min(int(has.get(name, 0.0) / amount + 1e-9) for name, amount in needs.items()) for has in nodes)


def _needs(resources: ResourcesSection) -> dict[str, float]:
    needs = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom}
    return {name: amount for name, amount in needs.items() if amount > 0} or {"CPU": 1.0}
