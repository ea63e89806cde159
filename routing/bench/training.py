"""What training costs in other forms: precision and memory layout of a conv net's step, augmentation of an image.

The net has the shape of small ones on photographs of 32 pixels: six 3x3 convolutions with batch norm in three stages;
weights and images are random, the work is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, band, devices, ratio, runs_bf16
from routing.config.augment import AugmentSection
from routing.data import DataInfo
from routing.data.augment import image_steps
from routing.evaluation.interleaved import interleaved
from routing.training.seeding import prepare_process

BATCH = 256
WIDTHS = (64, 128, 256)
BASE = "fp32, channels first"
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "crop and flip": {"crop": 2, "flip": True},
    "resized_crop": {"resized_crop": 0.35},
    "rand_augment: 2": {"rand_augment": 2},
    "trivial_augment": {"trivial_augment": True},
    "color_jitter without hue": {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}},
    "color_jitter with hue": {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
    "random_erasing": {"random_erasing": 1.0},
}
STEP_COLUMNS = {"device": "device", "way": "way", "ms_per_step": "ms/step", "ratio": "faster, times", **BAND_COLUMNS}
IMAGE_COLUMNS = {"augmentation": "augmentation", "pixels": "pixels", "us_per_image": "us/image", **BAND_COLUMNS}


def bench(quick: bool = False) -> list[BenchTable]:
    """Return both tables."""
    rounds = 5 if quick else 15
    steps = [row for device in devices() for row in training_steps(device, rounds)]
    images = [row for pixels in (32, 224) for row in augmentations(pixels, rounds)]
    return [
        BenchTable("a training step of a conv net in other forms", STEP_COLUMNS, steps),
        BenchTable("augmentation, one core", IMAGE_COLUMNS, images),
    ]


def training_steps(device: str, rounds: int, batch: int = BATCH) -> list[dict[str, Any]]:
    """Return one row per form, fp32 with channels first the base; bf16 only where the processor has instructions."""
    prepare_process(0, 1)
    images = torch.randn(batch, 3, 32, 32, device=device)
    targets = torch.randint(0, 10, (batch,), device=device)
    forms = [(False, False), (False, True), *([(True, False), (True, True)] if runs_bf16(device) else [])]
    ways = {_name(*form): _step(images, targets, *form) for form in forms}
    seconds = interleaved(ways, rounds)
    return [
        {
            "device": device,
            "way": way,
            "ms_per_step": band(seconds[way]).median * 1e3,
            **ratio(seconds[BASE], seconds[way]).row(),
        }
        for way in ways
    ]


def _name(is_bf16: bool, channels_last: bool) -> str:
    return f"{'bf16' if is_bf16 else 'fp32'}, channels {'last' if channels_last else 'first'}"


def _step(images: Tensor, targets: Tensor, is_bf16: bool, channels_last: bool) -> Callable[[], object]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = _net().to(images.device, memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=True)
    given = images.contiguous(memory_format=layout)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=is_bf16):
            loss = nn.functional.cross_entropy(net(given), targets)
        loss.backward()
        optimizer.step()

    return step


def _net() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 2), nn.GELU()]
    before = 24
    for width in WIDTHS:
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.GELU()]
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.GELU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def augmentations(pixels: int, rounds: int) -> list[dict[str, Any]]:
    """Return microseconds an image of every augmentation, on random images of this side."""
    prepare_process(0, 1)
    images = torch.randint(0, 256, (8192 // pixels, 3, pixels, pixels)).to(torch.uint8)
    info = DataInfo("classification", 3, pixels, 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    ways: dict[str, Callable[[], object]] = {}
    for name, keys in AUGMENTATIONS.items():
        step = image_steps(AugmentSection(**keys), info, torch.Generator().manual_seed(0))
        assert step is not None
        ways[name] = lambda step=step: step(images)  # type: ignore[misc]
    rows = []
    for name, seconds in interleaved(ways, rounds, warmup=1).items():
        each = band([value / len(images) * 1e6 for value in seconds])
        rows.append({"augmentation": name, "pixels": pixels, **each.row("us_per_image")})
    return rows
