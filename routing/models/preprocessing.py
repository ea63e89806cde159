"""How pretrained models of libraries see images, as keys of a data set; importing it imports no library.

An eval transform of timm, torchvision or open_clip is a resize, a centre crop and a normalisation; see ``data.view``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
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
    """Return the transforms of torchvision's weights; those of its default ones for a file, None without weights.

    Weights of a run stand for those that it started from, None where that was from scratch.
    """
    from routing.models.pretrained import first_weights

    weights = first_weights(weights)
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


def transformers_preprocessing(architecture: str, weights: str | None = None) -> Preprocessing | None:
    """Return ``preprocessor_config.json`` as its image processor reads it; None where there is none.

    Args:
        architecture: folder or name on the Hub.
        weights: a folder with a configuration of its own stands for it, also where a run started from that folder.

    Raises:
        MissingPackage: transformers is not installed.
        InputError: the file says what cannot be followed.
    """
    try:
        from transformers.models.auto.image_processing_auto import get_image_processor_config
    except ImportError:
        raise MissingPackage(
            "model.name transformers_vit needs transformers: pip install 'routing-sweeps[transformers]'"
        ) from None
    from routing.models.pretrained import LIBRARY_CONFIG, first_weights

    first = first_weights(weights)
    name = first if first is not None and (Path(first) / LIBRARY_CONFIG).is_file() else architecture
    try:
        config = get_image_processor_config(name)
    except Exception:  # a hub that does not answer raises anything; building the model reports it
        return None
    if not config:
        return None
    try:
        values = _of_processor(config)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the preprocessor_config.json of {name} cannot be followed: {error} (valid: size and crop_size of a "
            "square, image_mean and image_std as one or three numbers)"
        ) from None
    return Preprocessing(f"the preprocessor_config.json of {name}", values, is_renormalised=True)


def _of_processor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an image processor of transformers; what they leave out is as in its ViT's."""
    if not config.get("do_resize", True):
        raise ValueError("do_resize false: images of any size do not fit one model")
    size, is_cut = config.get("size", 224), bool(config.get("do_center_crop", False))
    keeps_shape = isinstance(size, Mapping) and "shortest_edge" in size
    resized = int(size["shortest_edge"]) if keeps_shape else _side(size)
    side = _side(config.get("crop_size", resized)) if is_cut else resized
    if not 0 < side <= resized:
        raise ValueError(f"crop_size {side} of size {resized}")
    mean, std = (_three(config.get(key, 0.5)) for key in ("image_mean", "image_std"))
    if not config.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    scale = 255 * float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 255.0
    mean, std = (tuple(value / scale for value in values) for values in (mean, std))  # of pixels from 0 to 1
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 10 for value in std):
        raise ValueError(f"image_mean {list(mean)} and image_std {list(std)} of pixels from 0 to 1")
    return {
        "input_size": side,
        "resize": "shortest" if is_cut or keeps_shape else "stretch",
        "crop_pct": _share(side, resized),
        "interpolation": _PIL_FILTERS.get(config.get("resample", 2), "bilinear"),
        "mean": mean,
        "std": std,
    }


def _side(size: Any) -> int:
    """Return the side of a square."""
    if isinstance(size, int):
        return size
    if not isinstance(size, Mapping) or not {"height", "width"} <= size.keys():
        raise ValueError(f"no height and width in size {size}")
    if size["height"] != size["width"]:
        raise ValueError(f"{size['height']} x {size['width']} is no square")
    return int(size["height"])


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
    """Return a value per channel; one number is that of all."""
    three = (values,) * 3 if isinstance(values, (int, float)) else tuple(values)
    if len(three) != 3:
        raise ValueError(f"{list(three)} for three channels")
    return tuple(float(value) for value in three)
