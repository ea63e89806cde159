"""``routing zeroshot``: zero-shot classification with an open_clip model, with and without token pruning.

Every record has the shape that clip_benchmark writes (dataset, model, pretrained, task, metrics, language), with more
metrics: multiply-adds per image of the vision tower, milliseconds per image, tokens kept.

Shapes: B images, C classes, M images of the split, L layers, H heads, T tokens.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from routing.commands.zeroshot_config import ZeroshotConfig
from routing.config.preprocessing import AUTO, KEYS
from routing.config.section import DatasetSection
from routing.data import ImageData, Split
from routing.data.image_folder import load, view_of
from routing.data.progress import note
from routing.data.sections import ImageFolderSection
from routing.errors import InputError, choices
from routing.evaluation.compute import count_module
from routing.files.atomic import write_bytes
from routing.files.tensors import save_tensors
from routing.models.vit.attention_maps import attention_maps
from routing.models.vit.clip import ClipModel, load_clip
from routing.models.vit.hosts import host_of
from routing.models.vit.prompts import read_class_names, read_templates
from routing.models.vit.section import PruningGridSection
from routing.models.vit.token_pruning import Pruning, pruned_by
from routing.training.seeding import pick_device, prepare_process

DEFAULT_TEMPLATE = "a photo of a {}."

COLUMNS = {
    "pruning": "pruning",
    "acc1": "top-1",
    "acc5": "top-5",
    "mean_per_class_recall": "mean per class",
    "flops": "multiply-adds",
    "ms_per_image": "ms/image",
    "kept_tokens": "kept",
    "tokens": "tokens",
    "images": "images",
}
"""Keys of a row (``rows``) and their headings."""


@dataclass
class _Tally:
    """Answers of one way of running the tower, gathered batch by batch."""

    pruning: Pruning | None
    logits: list[Tensor] = field(default_factory=list)
    seconds_per_image: list[float] = field(default_factory=list)


def zeroshot(
    config: ZeroshotConfig, *, compare: bool = False, attention_file: Path | None = None, samples: int = 8
) -> list[dict[str, Any]]:
    """Classify a split from prompts alone; return one record, or with ``compare`` two: unpruned, then pruned.

    Args:
        compare: run every batch both ways, one after the other, so that times compare.
        attention_file: where to save the attention of the first ``samples`` images (see ``extract_attention``).

    Raises:
        InputError: no such model, weights, data or split, or a pruning setting the tower cannot take.
    """
    prepare_process(config.seed, config.threads)
    device = pick_device(config.device)
    setting = config.setting()
    if config.pruning.grid != PruningGridSection():
        raise InputError(
            "pruning.grid: zero-shot runs one setting at a time; give k_anchors, top_m, alpha, start_layer"
        )
    if compare and setting is None:
        raise InputError("--compare needs a pruning setting to compare with: --pruning.k_anchors 10 --pruning.top_m 20")
    if config.dataset.task != "classification":  # before the data are read or drawn
        raise InputError(f"data set '{config.dataset.name}' has no classes: its task is '{config.dataset.task}'")
    templates = (
        [DEFAULT_TEMPLATE] if config.templates is None else read_templates(config.templates, config.dataset.name)
    )
    class_names = config.dataset.info().class_names
    if config.class_names is not None:
        class_names = tuple(read_class_names(config.class_names, config.dataset.name, len(class_names)))
    clip = load_clip(config.model, config.pretrained, device, config.seed)
    data = _load(config.dataset, clip)
    if config.split not in data.splits:
        raise InputError(
            f"data set '{config.dataset.name}' has no split '{config.split}' (valid: {choices(sorted(data.splits))})"
        )
    if setting is not None or attention_file is not None:
        host = host_of(clip.tower)
        if setting is not None:
            setting = setting.on(host)
    split = _first(data[config.split], config.limit).to(device)
    classes_EC = clip.class_embeddings(class_names, templates)
    if config.precision == "bf16":
        clip.tower.to(torch.bfloat16)
    tallies = [_Tally(pruning) for pruning in ([None, setting] if compare else [setting])]
    _classify(clip, split, classes_EC, tallies, config)
    if attention_file is not None:
        extract_attention(clip, split.images[:samples], setting, attention_file)
    return [_record(config, clip, split, tally, len(templates)) for tally in tallies]


def _load(section: DatasetSection, clip: ClipModel) -> ImageData:
    """Return the data; files are read as open_clip prepares images for the model, but for the keys that are given."""
    if not isinstance(section, ImageFolderSection):
        return section.load()
    own = replace(clip.view, background=section.background_rgb, bit_depth=view_of(section).bit_depth)
    given = {key: getattr(section, key) for key in KEYS if key in section.model_fields_set}
    if given.get("resize") == AUTO:
        del given["resize"]
    side = given.pop("input_size", None)
    sizes = {} if side is None else {"height": side, "width": side}
    sight = {key: given.pop(key) for key in ("resize", "crop_pct", "interpolation") if key in given}
    if given:
        raise InputError(f"dataset.{next(iter(given))}: images are normalised as the model's own (valid: not given)")
    view = replace(own, **sight, **sizes)
    other = {key: value for key, value in asdict(view).items() if value != getattr(own, key)}
    if other:
        shown = choices([f"{key} {value} (its own: {getattr(own, key)})" for key, value in other.items()])
        note(f"images: not as open_clip prepares them for the model: {shown}")
    return load(section, view)


def _first(split: Split, limit: int | None) -> Split:
    return split if limit is None else Split(split.images[:limit], split.targets[:limit])


@torch.inference_mode()
def _classify(clip: ClipModel, split: Split, classes_EC: Tensor, tallies: list[_Tally], config: ZeroshotConfig) -> None:
    dtype = next(clip.tower.parameters()).dtype
    first = clip.prepare(split.images[: config.batch_size]).to(dtype)
    for tally in tallies:  # warm up first, so that no variant pays for it
        with pruned_by(clip.tower, tally.pruning):
            clip.logits(first, classes_EC)
    for index, pixels in enumerate(split.images.split(config.batch_size)):
        images = clip.prepare(pixels).to(dtype)
        for tally in tallies if index % 2 == 0 else tallies[::-1]:
            with pruned_by(clip.tower, tally.pruning):
                _wait_for(images)
                started = time.perf_counter()
                logits = clip.logits(images, classes_EC)
                _wait_for(logits)
            tally.seconds_per_image.append((time.perf_counter() - started) / len(pixels))
            tally.logits.append(logits.cpu())


def _num_tokens(tower: nn.Module) -> int | None:
    """Return the tokens of a vision transformer; another tower has none, and runs unpruned all the same."""
    try:
        return host_of(tower).num_tokens
    except InputError:
        return None


def _wait_for(tensor: Tensor) -> None:
    """Wait until a GPU has finished all queued work."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _record(config: ZeroshotConfig, clip: ClipModel, split: Split, tally: _Tally, num_prompts: int) -> dict[str, Any]:
    """Return one result in the shape of clip_benchmark."""
    pruning = tally.pruning
    tokens = _num_tokens(clip.tower)
    image = torch.zeros(1, 3, *clip.image_size).to(next(clip.tower.parameters()))
    with pruned_by(clip.tower, pruning):
        flops = count_module(clip.tower, (image,))
    metrics = {
        **accuracies(torch.cat(tally.logits), split.targets.cpu()),
        "flops": flops,
        "ms_per_image": 1000 * statistics.median(tally.seconds_per_image),
        "kept_tokens": tokens if pruning is None else pruning.fewest_tokens(host_of(clip.tower)),
        "tokens": tokens,
        "images": len(split),
    }
    return {
        "dataset": config.dataset.name,
        "model": config.model,
        "pretrained": config.pretrained,
        "task": "zeroshot_classification",
        "metrics": metrics,
        "language": "en",
        "split": config.split,
        "prompts_per_class": num_prompts,
        "precision": config.precision,
        "batch_size": config.batch_size,
        "pruning": None if pruning is None else config.pruning.model_dump(mode="json", exclude={"grid"}),
    }


def accuracies(logits_MC: Tensor, targets_M: Tensor) -> dict[str, float]:
    """Return top-1 and top-5 accuracy (of all classes where there are fewer than five) and mean recall per class."""
    top = logits_MC.topk(min(5, logits_MC.shape[1]), dim=1).indices
    right_MK = top == targets_M[:, None]
    first_M = right_MK[:, 0].double()
    recalls = [float(first_M[targets_M == label].mean()) for label in targets_M.unique()]
    return {
        "acc1": float(first_M.mean()),
        "acc5": float(right_MK.any(dim=1).double().mean()),
        "mean_per_class_recall": sum(recalls) / len(recalls),
    }


def rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records as rows of a table (``COLUMNS``)."""
    return [
        {"pruning": "none" if record["pruning"] is None else record["pruning"]["method"], **record["metrics"]}
        for record in records
    ]


@torch.inference_mode()
def extract_attention(clip: ClipModel, pixels: Tensor, pruning: Pruning | None, path: Path) -> None:
    """Save the tower's attention: ``unpruned.block_i`` (B, H, T, T) of every layer.

    With pruning also ``pruned.block_i`` on the tokens that were there, and ``kept`` (B, K), their indices. A file of
    the suffix .pt or .pth is what ``torch.load`` reads, a mapping of these names; any other is safetensors.
    """
    images = clip.prepare(pixels).to(next(clip.tower.parameters()).dtype)
    tensors = {f"unpruned.block_{index}": maps for index, maps in attention_maps(clip.tower, images).items()}
    if pruning is not None:
        with pruned_by(clip.tower, pruning) as record:
            maps = attention_maps(clip.tower, images)
        tensors |= {f"pruned.block_{index}": values for index, values in maps.items()}
        if record.kept is not None:
            tensors["kept"] = record.kept
    if path.suffix.lower() in (".pt", ".pth"):
        buffer = io.BytesIO()
        torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, buffer)
        write_bytes(path, buffer.getvalue())
        return
    save_tensors(path, tensors, {"pruning": "none" if pruning is None else pruning.text()})
