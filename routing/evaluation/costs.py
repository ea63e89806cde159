"""Latency, memory and energy of every operating point, measured after training and only where a run asks for them.

A pass of the model and one of a fixed reference take turns, so that both meet the same disturbances: their ratio holds
on a busy machine, where milliseconds do not. A run of one CPU thread is timed by the processor time of that thread,
which stands still while another process has the processor; others by the clock. On one machine one run measures at a
time.

Dimensions: B images of a pass.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from routing.data.cache import cache_folder
from routing.errors import NodeFault, RoutingError
from routing.evaluation.evaluate import Evaluator
from routing.evaluation.interleaved import interleaved
from routing.models.base import KnobValue, VisionModel

PASSES = 40
"""Timed passes of a point, each over other images as far as there are some."""
REFERENCE = 1
"""Version of ``reference_pass``: ratios of different versions cannot be compared."""
_ENERGY_SECONDS = 1.0
_POWERCAP = Path("/sys/class/powercap")


def measured_costs(
    wanted: Sequence[str], model: VisionModel, evaluator: Evaluator, values: Sequence[KnobValue], batch_size: int
) -> list[dict[str, float]]:
    """Return the wanted costs of the model as it is, then at each knob value.

    Args:
        wanted: of ``latency_ms`` (median of a pass), ``latency_ratio`` (that / the median of the reference),
            ``peak_memory_mb`` (weights and the most that a pass holds at a time, in MiB) and ``energy_j`` (of a pass).
        evaluator: of the images that are passed, in batches of ``batch_size``.

    Raises:
        NodeFault: ``energy_j`` where no counter can be read.
        RoutingError: the file that keeps others from measuring meanwhile cannot be written.
    """
    was_training, trained = model.training, model.default_knob_value
    model.eval()
    found = list(islice(replace(evaluator, batch_size=batch_size).batches(model.needs), PASSES))
    turns = cycle(found)

    def forward() -> Tensor:
        batch = next(turns)
        return model(batch.images, **batch.facts).prediction

    rows = []
    device = found[0].images.device
    try:
        with _alone(), torch.no_grad(), evaluator.autocast:
            reference = reference_pass(device)
            rows.append(_costs(wanted, model, forward, reference, device))
            for value in values:
                model.set_knob(value)
                rows.append(_costs(wanted, model, forward, reference, device))
    finally:
        if values and trained is not None:
            model.set_knob(trained)
        model.train(was_training)
    return rows


def check_costs(wanted: Sequence[str], device: torch.device) -> None:
    """Raise ``NodeFault`` where this machine cannot measure what is wanted; called before training."""
    if "energy_j" in wanted:
        energy_counter(device)


def reference_pass(device: torch.device) -> Callable[[], Tensor]:
    """Return one pass of the reference: three 3x3 convolutions of 48 channels on 48 x 48 pixels, then two products of
    256 x 768 with 768 x 768, 0.44 G multiply-adds in fp32; weights and input are drawn under a fixed seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Conv2d(48, 48, 3, padding=1), nn.GELU()) for _ in range(3)]
        products = nn.Sequential(nn.Linear(768, 768), nn.GELU(), nn.Linear(768, 768)).to(device)
        image, tokens = torch.randn(1, 48, 48, 48, device=device), torch.randn(256, 768, device=device)
    convolutions = nn.Sequential(*layers).to(device)

    def run() -> Tensor:
        with torch.autocast(device.type, enabled=False):
            convolutions(image)
            return products(tokens)

    return run


def _costs(
    wanted: Sequence[str],
    model: VisionModel,
    forward: Callable[[], Tensor],
    reference: Callable[[], Tensor],
    device: torch.device,
) -> dict[str, float]:
    costs: dict[str, float] = {}
    if {"latency_ms", "latency_ratio"} & set(wanted):
        clock = time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        seconds = interleaved({"model": forward, "reference": reference}, PASSES, clock=clock)
        own, other = (statistics.median(seconds[name]) for name in ("model", "reference"))
        costs |= {"latency_ms": 1000 * own, "latency_ratio": own / other}
    if "peak_memory_mb" in wanted:
        costs["peak_memory_mb"] = (_weights_bytes(model) + peak_bytes(forward, device)) / 2**20
    if "energy_j" in wanted:
        costs["energy_j"] = _energy(forward, energy_counter(device))
    return {name: costs[name] for name in wanted}


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other runs on this machine from measuring meanwhile."""
    path = cache_folder() / "measuring.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire()
    except OSError as error:
        raise RoutingError(f"{path}: cannot be locked: {error}; set ROUTING_CACHE") from None
    try:
        yield
    finally:
        lock.release()


def _weights_bytes(model: nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes of tensors made by ``run`` that exist at a time.

    On a GPU its allocator counts, workspaces of its kernels included; elsewhere the results of operators are counted.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _Alive() as alive:
        run()
    return alive.most


class _Alive(TorchDispatchMode):
    """Counts the bytes of the storages that operators have made and that something still holds."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        result = func(*args, **(kwargs or {}))
        self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and (key := one.untyped_storage()._cdata) not in given:  # no view of an input
                self._held[key] = (StorageWeakRef(one.untyped_storage()), one.untyped_storage().nbytes())
        self.most = max(self.most, sum(size for _, size in self._held.values()))
        return result


def energy_counter(device: torch.device) -> Callable[[], float]:
    """Return a function that reads the joules used so far: by the GPU (NVML), or by all processors (RAPL).

    Other work on the same chip counts too.

    Raises:
        NodeFault: neither can be read.
    """
    if device.type == "cuda":
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except Exception as error:
            raise NodeFault(f"energy_j: NVML cannot be read ({error}); pip install nvidia-ml-py", "device") from None
        return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    counters = [path for path in sorted(_POWERCAP.glob("intel-rapl:?/energy_uj")) if _is_readable(path)]
    if device.type != "cpu" or not counters:
        where = f"{_POWERCAP}/intel-rapl:*/energy_uj, which most systems let only root read"
        raise NodeFault(f"energy_j: no counter of the device '{device.type}' can be read ({where})", "device")
    return lambda: sum(int(path.read_text()) for path in counters) / 1e6


def _is_readable(path: Path) -> bool:
    try:
        return int(path.read_text()) >= 0
    except (OSError, ValueError):
        return False


def _energy(run: Callable[[], object], joules: Callable[[], float]) -> float:
    """Return the joules of a pass, from the passes of one second; a counter that has begun anew is read again."""
    while True:
        passes, started, before = 0, time.perf_counter(), joules()
        while time.perf_counter() - started < _ENERGY_SECONDS:
            run()
            passes += 1
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        used = joules() - before
        if used >= 0:
            return used / passes
