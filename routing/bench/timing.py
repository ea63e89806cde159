"""What measured times come to: medians, bands and ratios, round by round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

BAND_COLUMNS = {"p10": "p10", "p90": "p90", "n": "rounds"}
"""Headings of ``Band.row`` beside its median."""
REALISED_COLUMNS = {
    "theoretical": "theoretical",
    "speed_up": "speed-up",
    "ratio": "realised/theoretical",
    **BAND_COLUMNS,
}
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # of /proc/cpuinfo, x86-64 and Arm


@dataclass(frozen=True)
class Band:
    """Median and 10-90 % band of ``n`` values."""

    median: float
    low: float
    high: float
    n: int

    def over(self, expected: float) -> Band:
        """Return it as a share of what was expected."""
        return Band(self.median / expected, self.low / expected, self.high / expected, self.n)

    def row(self, key: str = "ratio") -> dict[str, float]:
        """Return it as columns of a table; ``key`` is the median's."""
        return {key: self.median, "p10": self.low, "p90": self.high, "n": self.n}


def devices() -> list[str]:
    """Return the devices to measure on: the CPU, and the GPU where there is one."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def runs_bf16(device: str) -> bool:
    """Return whether the processor has instructions for bf16; one that emulates it tells nothing about speed."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not _BF16_FLAGS.isdisjoint(flags.split())


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Band:
    """Return numerator / denominator round by round; a round's two timings met the same disturbance."""
    return band([a / b for a, b in zip(numerator, denominator, strict=True)])


def band(values: Sequence[float]) -> Band:
    """Return median and band; of fewer than three values the band is their range."""
    ordered = sorted(values)
    few = len(ordered) < 3
    low, high = (ordered[0], ordered[-1]) if few else (_quantile(ordered, 0.1), _quantile(ordered, 0.9))
    return Band(statistics.median(ordered), low, high, len(ordered))


def exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return (k, R2) of the least-squares line through the logarithms: values grow as sizes ** k.

    Raises:
        ValueError: fewer than two different sizes, or a size or value that is not positive.
    """
    if len(set(sizes)) < 2:
        raise ValueError("an exponent needs at least two different sizes")
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
    residual = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    spread = sum((y - mean_y) ** 2 for y in ys)
    return slope, 1 - residual / spread if spread else 1.0


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
