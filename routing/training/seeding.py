"""Process state that is reset before a run, so that a reused process gives the same results as a fresh one."""

from __future__ import annotations

import os
import random
import zlib

import numpy as np
import torch

from routing.errors import InputError, NodeFault
from routing.training.memory import keep_freed_memory


def prepare_process(seed: int, threads: int) -> None:
    """Seed Python, numpy and torch, set the thread count, and undo switches a former run may have left."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries still read the global generator
    torch.manual_seed(seed)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.cuda.empty_cache()


def pick_device(name: str) -> torch.device:
    """Return the device of ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``; one that is absent is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device '{name}': no such kind of device (valid: auto, cpu, cuda, cuda:N, mps)") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise NodeFault(f"device '{name}': this machine has {found} CUDA devices (valid: cpu)", "device")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise NodeFault("device 'mps': not available on this machine (valid: cpu)", "device")
    return device


def epoch_order(seed: int, epoch: int, count: int) -> torch.Tensor:
    """Return the order of training images in an epoch; depends on seed and epoch only, so that a resumed run agrees."""
    return torch.randperm(count, generator=epoch_generator(seed, epoch))


def epoch_generator(seed: int, epoch: int, purpose: str = "") -> torch.Generator:
    """Return a generator of its own for every seed, epoch and purpose."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch + (zlib.crc32(purpose.encode()) << 24)) % 2**63)
