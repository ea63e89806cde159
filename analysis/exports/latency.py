"""Latency of an exported model, measured on this machine and on real images."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from routing.bench.tables import processor
from routing.saved import SavedRun

WARM_UP = 5
REPEATS = 40


@dataclass(frozen=True)
class SingleImageLatency:
    """Milliseconds of one image at a time: median and 95th percentile, and on what."""

    ms_p50: float
    ms_p95: float
    images: int
    where: str

    def words(self) -> str:
        """Return the measurement as one sentence."""
        return (
            f"{self.ms_p50:.3g} ms per image (median; 95th percentile {self.ms_p95:.3g} ms) over {self.images} single "
            f"validation images on {self.where}"
        )


def time_single_images(saved: SavedRun, images: Tensor) -> SingleImageLatency:
    """Time single images, preprocessing included, on the device of the saved model.

    Args:
        saved: a model ready to predict.
        images: real uint8 images (N, C, H, W): a routed model's time depends on what is in them.
    """
    device = next(saved.model.parameters()).device
    sample = [images[i : i + 1].to(device) for i in range(min(REPEATS, len(images)))]
    for image in sample[:WARM_UP]:
        saved.output(image)
    times = []
    for image in sample:
        _wait(device)
        start = time.perf_counter()
        saved.output(image)
        _wait(device)
        times.append((time.perf_counter() - start) * 1000)
    times.sort()
    return SingleImageLatency(statistics.median(times), times[int(0.95 * (len(times) - 1))], len(times), _where(device))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _where(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} {processor()}, {threads} thread{'s' if threads > 1 else ''}"
