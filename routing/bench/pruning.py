"""How much of a pruned transformer's theoretical speed-up is real: timed side by side with the unpruned model.

Both run the same network in PyTorch's fused attention. Theoretical speed-up = multiply-adds unpruned / pruned, the
choice of tokens included; realised = median over rounds of the ratio of times; what counts is realised / theoretical.
Twice: every method of this project on its own ViT; and on timm's, beside three methods of the literature.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from routing.bench.pruning_peers import STAGES, Peer, Predictor, dynamic_vit, evit, tome
from routing.bench.tables import BenchTable
from routing.bench.timing import BAND_COLUMNS, devices, interleaved, ratio, runs_bf16
from routing.data import DataInfo
from routing.models.token_pruning import METHODS, Pruning, pruned_by
from routing.models.token_selection import Selection
from routing.models.vit_models import Vit
from routing.models.vit_section import VitSection
from routing.training.seeding import prepare_process

SELECTION = Selection(k_anchors=10, top_m=50, alpha=0.5)
START_LAYER = 1
LATE_LAYER = 3  # from here on about as much is saved as the methods of the literature save at their settings
UNPRUNED = "unpruned"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ARCHITECTURES = {"vit_s_16": (384, 6), "vit_b_16": (768, 12)}  # width, heads; 12 blocks at 224 pixels: 197 tokens

COLUMNS = {
    "device": "device",
    "architecture": "model",
    "precision": "precision",
    "batch_size": "batch",
    "method": "method",
    "tokens": "tokens",
    "flops": "multiply-adds",
    "ms_per_image": "ms/image",
    "ms_per_image_unpruned": "unpruned",
    "theoretical": "theoretical",
    "realised": "realised",
    "ratio": "realised/theoretical",
    **BAND_COLUMNS,
}


PEER_COLUMNS = {key: heading for key, heading in COLUMNS.items() if key != "tokens"}


@dataclass(frozen=True)
class Way:
    """One way to run a model, and its multiply-adds per image."""

    run: Callable[[Tensor], object]
    flops: float


def bench(quick: bool = False) -> list[BenchTable]:
    """Return the tables, in fp32 and, where the processor has instructions for it, bf16; timm's needs timm."""
    prepare_process(seed=0, threads=1)
    batch_sizes, rounds = ((8, 1), 3) if quick else ((32, 8, 1), 7)
    own: list[dict[str, Any]] = []
    literature: list[dict[str, Any]] = []
    for device in devices():
        precisions = [name for name in DTYPES if name == "fp32" or runs_bf16(device)]
        own += bench_pruning(batch_sizes=batch_sizes, precisions=precisions, rounds=rounds, device=device)
        if find_spec("timm") is not None:
            literature += bench_literature(batch_sizes, precisions, rounds, device)
    tables = [BenchTable("token pruning against the unpruned model", COLUMNS, own)]
    if literature:
        tables.append(BenchTable("token reduction of the literature, on timm's ViT", PEER_COLUMNS, literature))
    return tables


def bench_pruning(
    architectures: Sequence[str] = ("vit_s_16",),
    batch_sizes: Sequence[int] = (32, 8, 1),
    precisions: Sequence[str] = ("fp32", "bf16"),
    methods: Sequence[str] = METHODS,
    rounds: int = 7,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Yield one row (see ``COLUMNS``) per architecture, precision, batch size and method.

    Args:
        precisions: ``fp32`` or ``bf16``, of weights and images.
        rounds: timed rounds at the largest batch; smaller batches get more, in the same time.
    """
    settings = {method: Pruning(SELECTION, START_LAYER, method) for method in methods}
    for architecture in architectures:
        for precision in precisions:
            model = _model(architecture).to(device, DTYPES[precision])
            ways = {UNPRUNED: Way(model.core, model.dense_flops)}
            for method, pruning in settings.items():
                ways[method] = Way(partial(_pruned, model.core, pruning=pruning), model.cost_at(pruning))
            fixed = {"tokens": f"{SELECTION.num_kept} of {model.host.num_tokens}"}
            fixed |= {"device": device, "architecture": architecture, "precision": precision}
            for row in _over_batches(ways, batch_sizes, rounds, next(model.parameters())):
                yield {**fixed, **row}


def bench_literature(
    batch_sizes: Sequence[int], precisions: Sequence[str], rounds: int, device: str = "cpu", **sizes: Any
) -> Iterator[dict[str, Any]]:
    """Yield one row (see ``PEER_COLUMNS``) per precision, batch size and method, on timm's ViT-S/16.

    Multiply-adds are PyTorch's own count, which sees what every method really runs, by the same rule for all.

    Args:
        sizes: other arguments of timm's model; 12 blocks are needed.
    """
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", **sizes).eval()
    predictors = nn.ModuleList(Predictor(model.embed_dim) for _ in STAGES).eval()
    runs: dict[str, Peer] = {UNPRUNED: lambda model, images: model(images)}
    for layer in (START_LAYER, LATE_LAYER):
        runs[f"{SELECTION.num_kept} tokens from block {layer} (ours)"] = partial(
            _pruned, pruning=Pruning(SELECTION, layer)
        )
    runs |= {"ToMe, 16 a block": tome, "EViT, keep .5": evit, "DynamicViT, keep .5": dynamic_vit(predictors)}
    flops = {name: _multiply_adds(partial(run, model)) for name, run in runs.items()}
    for precision in precisions:
        for module in (model, predictors):
            module.to(device, DTYPES[precision])
        ways = {name: Way(partial(run, model), flops[name]) for name, run in runs.items()}
        fixed = {"device": device, "architecture": "timm vit_small_patch16_224", "precision": precision}
        for row in _over_batches(ways, batch_sizes, rounds, next(model.parameters())):
            yield {**fixed, **row}


def _model(architecture: str) -> Vit:
    width, heads = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    info = DataInfo("classification", 3, 224, 1000, (0.5,) * 3, (0.5,) * 3)
    section = VitSection(patch_size=16, width=width, heads=heads, depth=12, mlp=4 * width, dropout=0.0)
    return Vit(section, info).eval()


def _pruned(model: nn.Module, images: Tensor, pruning: Pruning) -> Tensor:
    with pruned_by(model, pruning):
        logits: Tensor = model(images)
    return logits


@torch.no_grad()
def _multiply_adds(run: Callable[[Tensor], object]) -> float:
    """Return PyTorch's count for one image; the unfused kernel shows the products of attention on every version."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run(torch.zeros(1, 3, 224, 224))
    return counter.get_total_flops() / 2


def _over_batches(
    ways: Mapping[str, Way], batch_sizes: Sequence[int], rounds: int, like: Tensor
) -> Iterator[dict[str, Any]]:
    """Yield one row per batch size and way but the first, which is the base; images are made ``like`` the weights."""
    for batch_size in batch_sizes:
        count = rounds * max(1, min(20, max(batch_sizes) // batch_size))
        images = torch.randn(batch_size, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(like)
        with torch.inference_mode():
            seconds = interleaved({name: partial(way.run, images) for name, way in ways.items()}, count, 1)
        base = ways[UNPRUNED]
        for name, way in ways.items():
            if way is base:
                continue
            theoretical = base.flops / way.flops
            speed_up = ratio(seconds[UNPRUNED], seconds[name])
            yield {
                "batch_size": batch_size,
                "method": name,
                "flops": way.flops,
                "ms_per_image": 1000 * statistics.median(seconds[name]) / batch_size,
                "ms_per_image_unpruned": 1000 * statistics.median(seconds[UNPRUNED]) / batch_size,
                "theoretical": theoretical,
                "realised": speed_up.median,
                **speed_up.over(theoretical).row(),
            }
