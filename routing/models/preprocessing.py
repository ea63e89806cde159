"""How pretrained models of libraries see images, as keys of a data set; importing it imports no library.

An eval transform of timm, torchvision or open_clip is a resize, a centre crop and a normalisation; see ``data.view``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from routing.config.preprocessing import Preprocessing
from routing.errors import InputError, MissingPackage

_TIMM_MODES = {"center": "shortest", "squash": "stretch", "border": "longest_pad"}
_PIL_FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
_OPEN_CLIP_MODES = {"shortest": "shortest", "squash": "stretch", "longest": "longest_pad"}


def timm_preprocessing(architecture: str) -> Preprocessing:
    """Return timm's ``pretrained_cfg`` of a name, read as its own transforms read it.

    Raises:
        InputError: timm is not installed, or has no such model.
    """
    try:
        from timm.data import resolve_data_config
        from timm.models import get_pretrained_cfg
    except ImportError:
        raise MissingPackage("dataset.resize auto of a model of timm: pip install 'routing-sweeps[timm]'") from None
    config = _timm_config(get_pretrained_cfg, architecture)
    found = resolve_data_config(pretrained_cfg=config)
    _, height, width = found["input_size"]
    values = {
        "resize": _TIMM_MODES[found["crop_mode"]],
        "crop_pct": float(found["crop_pct"]),
        "interpolation": _known(found["interpolation"]),
        "mean": _three(found["mean"]),
        "std": _three(found["std"]),
        **({"input_size": int(height)} if height == width else {}),  # the images of these data sets are square
    }
    return Preprocessing(f"timm's {architecture}", values, is_renormalised=True)


def _timm_config(get: Any, architecture: str) -> dict[str, Any]:
    try:
        found = get(architecture)
    except RuntimeError:  # its name for a tag that it does not know
        found = None
    if found is None:
        raise InputError(f"dataset.resize auto: timm knows no preprocessing of model.architecture '{architecture}'")
    config: dict[str, Any] = found.to_dict()
    return config


def torchvision_preprocessing(architecture: str, weights: str | None) -> Preprocessing | None:
    """Return the transforms of torchvision's weights; those of its default ones for a file, None without weights."""
    if weights is None:
        return None
    from torchvision.models import get_model_weights

    known = get_model_weights(architecture)
    name = weights if weights in known.__members__ else "DEFAULT"
    if name not in known.__members__:
        return None
    found = known[name].transforms()
    crop, resized = int(found.crop_size[0]), int(found.resize_size[0])
    values = {
        "input_size": crop,
        "resize": "shortest",
        "crop_pct": _share(crop, resized),
        "interpolation": _known(found.interpolation.value),
        "mean": _three(found.mean),
        "std": _three(found.std),
    }
    return Preprocessing(f"torchvision's {architecture} ({name})", values)


def transformers_preprocessing(name: str) -> Preprocessing | None:
    """Return ``preprocessor_config.json`` of a folder or a name on the Hub as its image processor reads it.

    None where there is none.

    Raises:
        MissingPackage: transformers is not installed.
    """
    try:
        from transformers.models.auto.image_processing_auto import get_image_processor_config
    except ImportError:
        raise MissingPackage(
            "model.name transformers_vit needs transformers: pip install 'routing-sweeps[transformers]'"
        ) from None
    try:
        config = get_image_processor_config(name)
    except Exception:  # a hub that does not answer raises anything; building the model reports it
        return None
    if not config:
        return None
    size, is_cut = config.get("size", 224), bool(config.get("do_center_crop", False))
    resized = size if isinstance(size, int) else int(size.get("shortest_edge", size.get("height", 224)))
    crop = config.get("crop_size", resized) if is_cut else resized
    side = crop if isinstance(crop, int) else int(crop["height"])
    keeps_shape = is_cut or (isinstance(size, dict) and "shortest_edge" in size)
    values = {
        "input_size": side,
        "resize": "shortest" if keeps_shape else "stretch",
        "crop_pct": _share(side, resized),
        "interpolation": _PIL_FILTERS.get(config.get("resample", 2), "bilinear"),
        "mean": _three(config.get("image_mean", (0.5,) * 3)),
        "std": _three(config.get("image_std", (0.5,) * 3)),
    }
    return Preprocessing(f"the preprocessor_config.json of {name}", values, is_renormalised=True)


def open_clip_view(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``View`` that prepares images as open_clip's ``preprocess_cfg`` says."""
    size, fill = config["size"], config.get("fill_color", 0)
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "height": int(height),
        "width": int(width),
        "resize": _OPEN_CLIP_MODES[config.get("resize_mode", "shortest")],
        "interpolation": _known(config.get("interpolation", "bicubic"), "bicubic"),
        "fill": (fill,) * 3 if isinstance(fill, int) else tuple(fill),
    }


def _share(crop: int, resized: int) -> float:
    """Return the crop as a share, such that the crop divided by it, rounded down, is the side resized to."""
    share = math.floor(10_000 * crop / resized) / 10_000
    return share if math.floor(crop / share) == resized else crop / resized


def _known(interpolation: str, default: str = "bilinear") -> str:
    """Return the filter of a resize; ``random`` is one of the two in training, and ``default`` in evaluation."""
    return interpolation if interpolation in ("bilinear", "bicubic", "lanczos") else default


def _three(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
